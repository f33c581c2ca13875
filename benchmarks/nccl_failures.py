"""What goes wrong around a collective, and how long until the caller knows and until the next call has answered.

python -m benchmarks.nccl_failures [--world-sizes 2 4] [--repeats 3] [--hold-gib 16]

Over NCCL where there are GPUs, else over gloo.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from worker_node.distributed import (
    CallTimeout,
    DistributedRunner,
    DistributedWorker,
    RankDied,
    RankEvent,
    RankFailed,
    RunnerState,
    RunnerStatus,
)

TIMEOUT_S = 1.0
ELEMENTS = 2**22
MAX_DEATH_S = 1.0
"""From SIGKILL inside a collective to the error at the caller."""
MAX_SEEN_S = 0.1
"""From SIGKILL to the runner's notice, while no call runs."""


class Meeting(DistributedWorker):
    """Reduces once, for ever, or not on every rank."""

    def setup(self, hold_bytes: int) -> None:
        """Hold so much memory of the device, as a model would: the driver takes its time to free it."""
        import torch

        self.held = torch.ones(hold_bytes, dtype=torch.uint8, device=self.device)

    def __call__(self, do: str = "once", **_: Any) -> float:
        """Meet in the way that ``do`` names."""
        last = self.rank == self.world_size - 1
        if do == "for ever":
            self.reduce()
            self.add_streaming_result(time.monotonic())
            while True:
                self.reduce()
        if last and do == "without the last":
            threading.Event().wait()
        if last and do == "the last raises":
            self.add_streaming_result(time.monotonic())
            raise ValueError("before the collective")
        return self.reduce()

    def reduce(self) -> float:
        """Sum over all ranks; returns when it is done."""
        import torch
        import torch.distributed as dist

        ones = torch.ones(ELEMENTS, device=self.device)
        dist.all_reduce(ones)
        return float(ones[0])


class Watched:
    """A runner and the moment at which it began to rebuild."""

    def __init__(self, world_size: int) -> None:
        self.runner = DistributedRunner(Meeting, world_size, on_change=self._on_change)
        self._rebuilding: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def _on_change(self, status: RunnerStatus) -> None:
        if status.state is RunnerState.REBUILDING and not self._rebuilding.done():
            self._rebuilding.set_result(time.monotonic())

    async def killed_inside(self) -> float:
        """Kill the last rank while all of them are in one collective after the other."""
        inside: set[int] = set()
        all_inside = asyncio.Event()

        def on_event(event: RankEvent) -> None:
            inside.add(event.rank)
            if len(inside) == self.runner.world_size:
                all_inside.set()

        call = asyncio.create_task(self.runner.call({"do": "for ever"}, on_event=on_event))
        await all_inside.wait()
        began = self._kill_the_last()
        return await _until_error(call, RankDied) - began

    async def killed_idle(self) -> float:
        """Kill the last rank while no call runs."""
        self._rebuilding = asyncio.get_running_loop().create_future()
        began = self._kill_the_last()
        return await self._rebuilding - began

    async def hung(self) -> float:
        """One rank never comes; count from the end of the call's time."""
        began = time.monotonic()
        call = self.runner.invoke({"do": "without the last"}, timeout=TIMEOUT_S)
        return await _until_error(call, CallTimeout) - began - TIMEOUT_S

    async def raised(self) -> float:
        """One rank raises, the others wait for it in a collective."""
        raised_at: list[float] = []
        call = self.runner.call({"do": "the last raises"}, on_event=lambda event: raised_at.append(event.data))
        return await _until_error(call, RankFailed) - raised_at[0]

    def _kill_the_last(self) -> float:
        began = time.monotonic()
        os.kill(self.runner.status().ranks[-1].pid, signal.SIGKILL)
        return began


async def _until_error(call: Awaitable[Any], expected: type[Exception]) -> float:
    try:
        await call
    except expected:
        return time.monotonic()
    raise AssertionError("the call should have failed")


async def measure(world_size: int, repeats: int, hold_bytes: int) -> None:
    """Do each of it so often on one runner."""
    watched = Watched(world_size)
    began = time.monotonic()
    await watched.runner.start(hold_bytes=hold_bytes)
    print(f"world size {world_size}, {time.monotonic() - began:.2f} s from start to ready")
    await watched.runner.invoke()
    causes: list[tuple[str, Callable[[], Awaitable[float]], float | None]] = [
        ("SIGKILL inside an all_reduce, to the error", watched.killed_inside, MAX_DEATH_S),
        ("SIGKILL while idle, until it is noticed", watched.killed_idle, MAX_SEEN_S),
        (f"all_reduce that hangs, {TIMEOUT_S:g} s of time, to the error after that", watched.hung, None),
        ("exception before an all_reduce, to the error", watched.raised, None),
    ]
    for name, act, limit in causes:
        known, answered = [], []
        for _ in range(repeats):
            known.append(await act())
            began = time.monotonic()
            if await watched.runner.invoke() != world_size:
                raise AssertionError("the next call gave a wrong sum")
            answered.append(time.monotonic() - began)
        verdict = "" if limit is None else f"  (threshold {limit:g} s: {'holds' if max(known) < limit else 'MISSED'})"
        print(
            f"  {name:62} median {statistics.median(known) * 1000:8.1f} ms   max {max(known) * 1000:8.1f} ms{verdict}\n"
            f"  {'  and the next call answered after another':62} median {statistics.median(answered):8.2f} s",
            flush=True,
        )
    await watched.runner.stop()


async def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world-sizes", type=int, nargs="+", default=[2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hold-gib", type=float, default=0, help="memory that each rank holds on its device")
    arguments = parser.parse_args()
    for world_size in arguments.world_sizes:
        await measure(world_size, arguments.repeats, int(arguments.hold_gib * 2**30))


if __name__ == "__main__":
    asyncio.run(main())
