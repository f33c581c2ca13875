"""A caller that is slow: progress coalesces, outputs make the worker wait, and a call's events stay its own."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path
from typing import Any

import pytest

from worker_node.distributed import DistributedRunner, RankEvent
from worker_node.distributed.window import OUTPUT_BYTES, WINDOW_BYTES

pytestmark = pytest.mark.anyio


class SlowListener:
    """Takes its first event and no other until it is let go."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.has_first, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, event: RankEvent) -> None:
        self.seen.append(event.data)
        self.has_first.set()
        await self.go_on.wait()


async def test_progress_coalesces_for_a_slow_caller_and_the_last_arrives(single: DistributedRunner):
    listener = SlowListener()
    call = asyncio.create_task(single.call({"do": "progress", "steps": 5000}, on_event=listener))

    await listener.has_first.wait()
    listener.go_on.set()
    await call

    steps = [data["step"] for data in listener.seen]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] == 4999
    assert len(steps) < 2500


async def test_outputs_make_the_worker_wait_for_a_slow_caller_and_none_is_lost(
    single: DistributedRunner, tmp_path: Path
):
    fifo, size = tmp_path / "sent", 2**20
    os.mkfifo(fifo)
    count, ahead = 4 * WINDOW_BYTES // size, []
    with os.fdopen(os.open(fifo, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0) as marks:
        sent = 0

        async def listen(event: RankEvent) -> None:
            nonlocal sent
            while (number := event.data["number"]) == 0 and sent < OUTPUT_BYTES // (size + 512):
                await asyncio.to_thread(select.select, [marks], [], [])
                sent += len(marks.read() or b"")
            sent += len(marks.read() or b"")
            ahead.append((number, sent - number))

        await single.call({"do": "outputs", "count": count, "size": size, "file": str(fifo)}, on_event=listen)

    assert [number for number, _ in ahead] == list(range(count))
    assert max(distance for _, distance in ahead) * size <= WINDOW_BYTES


async def test_a_task_that_outlives_its_call_adds_nothing_to_the_next(single: DistributedRunner):
    await single.call({"do": "leave_task"}, on_event=lambda _: None)

    items = [item async for item in single.stream({"do": "let_task_go"})]

    assert items == ["let go"]
