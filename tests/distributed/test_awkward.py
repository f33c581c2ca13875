"""Awkward moments and awkward workers: nothing hangs, nothing is mixed up, the next call works."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.conftest import ENV, ended
from worker_node.distributed import (
    CallCancelled,
    DistributedRunner,
    NotRunning,
    RankDied,
    RankEvent,
    RankFailed,
    RunnerState,
)

pytestmark = pytest.mark.anyio

AWKWARD = "tests.distributed.awkward:Awkward"
Pids = Callable[[DistributedRunner], list[int]]


@pytest.fixture(scope="module")
async def one(anyio_backend: str) -> AsyncIterator[DistributedRunner]:
    async with DistributedRunner(AWKWARD, 1, env=ENV, grace_s=0.5) as runner:
        yield runner


@pytest.fixture(scope="module")
async def two(anyio_backend: str) -> AsyncIterator[DistributedRunner]:
    async with DistributedRunner(AWKWARD, 2, env=ENV, grace_s=0.5) as runner:
        yield runner


class Stalled:
    """A listener that takes one event and no other until it is let go."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.has_begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, event: RankEvent) -> None:
        self.seen.append(event.data)
        self.has_begun.set()
        await self.go_on.wait()


async def test_an_output_larger_than_the_window_goes_though_others_left_remainders_in_it(two: DistributedRunner):
    listener = Stalled()
    call = asyncio.create_task(two.call({"do": "large_after_small"}, on_event=listener))

    await listener.has_begun.wait()
    listener.go_on.set()
    await call

    assert len(listener.seen) == 301
    assert await two.call({"do": "large", "mebibytes": 30}, on_event=lambda _: None) == "large"


async def test_streams_that_are_left_again_and_again_give_all_their_room_back(two: DistributedRunner, pids: Pids):
    before = pids(two)
    for _ in range(6):
        async for _item in two.stream({"do": "large", "mebibytes": 14}):
            break

    assert await two.call({"do": "large", "mebibytes": 30}, on_event=lambda _: None) == "large"
    assert pids(two) == before


async def test_a_caller_that_reads_nothing_blocks_nobody_once_its_call_is_over(one: DistributedRunner):
    listener = Stalled()
    stalled = asyncio.create_task(one.call({"do": "large", "mebibytes": 10}, on_event=listener))
    await listener.has_begun.wait()

    assert await one.call({"do": "large", "mebibytes": 30}, on_event=lambda _: None) == "large"

    listener.go_on.set()
    assert await stalled == "large"
    assert len(listener.seen) == 10


async def test_outputs_that_waited_for_room_when_their_call_ended_are_no_part_of_the_next(one: DistributedRunner):
    listener = Stalled()
    first = asyncio.create_task(one.call({"do": "leave_outputs"}, on_event=listener))
    await listener.has_begun.wait()

    second = [item async for item in one.stream({"do": "end_what_was_left"})]

    listener.go_on.set()
    assert await first == "left"
    assert second == ["ended"]


async def test_a_rank_that_dies_just_after_it_stopped_is_not_taken_for_warm(one: DistributedRunner):
    begun = asyncio.Event()
    call = asyncio.create_task(one.call({"do": "die_when_cancelled"}, on_event=lambda _: begun.set()))
    await begun.wait()
    rank = os.pidfd_open(one.status().ranks[0].pid)

    cancel = asyncio.create_task(one.cancel())
    await asyncio.sleep(0)
    # The loop stands still: it finds the report and the end of the rank at once.
    select.select([rank], [], [])
    os.close(rank)
    await cancel

    with pytest.raises(CallCancelled):
        await call
    assert await one.invoke({"do": "all_reduce"}) == 1.0


@pytest.mark.parametrize(("how", "expected"), [("interrupt", "KeyboardInterrupt"), ("cancel", "CancelledError")])
async def test_what_is_no_exception_is_one_for_the_caller_and_the_rank_stays(
    one: DistributedRunner, pids: Pids, how: str, expected: str
):
    before = pids(one)

    with pytest.raises(RankFailed) as failed:
        await one.invoke({"do": "leave", "how": how})

    assert failed.value.type_name == expected
    assert pids(one) == before


async def test_a_rank_that_exits_ends_at_once_though_a_thread_of_it_goes_on(one: DistributedRunner):
    with pytest.raises(RankDied) as died:
        await one.invoke({"do": "leave", "how": "exit"})

    assert died.value.exit_code == 3
    assert await one.invoke({"do": "all_reduce"}) == 1.0


async def test_lines_said_in_the_middle_of_events_and_results_do_not_get_into_them(one: DistributedRunner):
    seen: list[RankEvent] = []

    result = await one.call({"do": "speak_in_between", "count": 2000}, on_event=seen.append)

    assert [event.data["number"] for event in seen] == list(range(2000))
    for pieces in [result, *(event.data["pieces"] for event in seen)]:
        assert all(np.array_equal(piece, np.full(10, index, np.uint8)) for index, piece in enumerate(pieces))
    assert one.status().dropped == 0


async def test_a_flag_that_is_no_bool_loses_no_event(one: DistributedRunner):
    assert [item async for item in one.stream({"do": "odd_flag"})] == ["odd", "fine"]


async def test_a_text_stream_ends_with_the_error_and_then_raises_it(two: DistributedRunner):
    events: list[bytes] = []

    stream = two.stream({"do": "fail", "ranks": [0, 1]}, as_text_events=True)

    events.append(await anext(stream))
    with pytest.raises(RankFailed):
        await anext(stream)
    assert len(events) == 1
    assert events[0].startswith(b"id: 1\nevent: error\n")
    assert b'"error_type": "KeyError", "code": "rank_failed", "rank": ' in events[0]


async def test_a_call_whose_turn_comes_as_the_runner_is_stopped_is_refused(tmp_path: Path):
    runner = DistributedRunner(AWKWARD, env=ENV, cwd=tmp_path)
    await runner.start()

    async def call_and_stop() -> None:
        await runner.invoke({"do": "all_reduce"})
        await runner.stop()

    first = asyncio.create_task(call_and_stop())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(runner.invoke({"do": "all_reduce"}))
    await first

    with pytest.raises(NotRunning):
        await waiting
    await runner.start()
    assert await runner.invoke({"do": "all_reduce"}) == 1.0
    await runner.stop()


@pytest.mark.parametrize("end", ["stop", "terminate"])
async def test_a_start_that_is_ended_leaves_the_next_one_alone(end: str):
    runner = DistributedRunner(AWKWARD, env=ENV)
    first = asyncio.create_task(runner.start())
    await asyncio.sleep(0)

    if end == "stop":
        await runner.stop()
    else:
        runner.terminate()
    await runner.start()

    with pytest.raises(NotRunning):
        await first
    assert await runner.invoke({"do": "all_reduce"}) == 1.0
    await runner.stop()
    assert runner.status().state is RunnerState.STOPPED


async def test_a_start_that_is_cancelled_twice_leaves_nothing():
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = files()
    for turns in range(6):
        start = asyncio.create_task(DistributedRunner(AWKWARD, 2, env=ENV).start())
        for _ in range(turns):
            await asyncio.to_thread(os.sched_yield)
        start.cancel()
        await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait({task for task in others if "destroy" in repr(task)} or {asyncio.create_task(asyncio.sleep(0))})
    assert files() == before


async def test_what_ranks_have_started_ends_with_a_parent_that_is_killed():
    script = (
        "import asyncio; from worker_node.distributed import DistributedRunner\n"
        "async def main():\n"
        f"    runner = DistributedRunner({AWKWARD!r}, 2, on_log=lambda log: print(log.message, flush=True))\n"
        "    await runner.start(start_helper=True); print('ready', flush=True); await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    paths = {**os.environ, **ENV, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE, env=paths)
    assert parent.stdout is not None
    # What ranks print comes on a way of its own: before or after their runner is ready.
    lines = [(await parent.stdout.readline()).strip() for _ in range(3)]
    started = [os.pidfd_open(int(line)) for line in lines if line != b"ready"]

    parent.kill()
    await parent.wait()

    assert len(started) == 2
    for process in started:
        await ended(process)
