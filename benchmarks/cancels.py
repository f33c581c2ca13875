"""From a cancel to ranks that have answered the next call: ranks that vote, and ranks that must be killed.

python -m benchmarks.cancels [--world-sizes 1 2] [--votes 50] [--kills 10] [--hold-gib 16] [--grace-s 2] [--json FILE]

Over NCCL where there are GPUs, else over gloo. Ends with 1 where a threshold is missed. It needs this folder and
worker_node/distributed with torch, pyzmq and msgpack, and nothing else of the project.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import os
import platform
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from worker_node.distributed import CallCancelled, DistributedRunner, DistributedWorker, RankEvent

ELEMENTS = 2**22
VOTE_S = 1.0
"""Most that may pass, at the 99th percentile, where ranks look whether they are cancelled."""
KILL_S = 6.0
"""The same where they do not, and are made anew."""
VOTES, DEAF, HUNG = "steps that vote", "collectives that never vote", "a collective that one rank never enters"


class Busy(DistributedWorker):
    """Works for ever in one of three ways, or once."""

    def setup(self, hold_bytes: int) -> None:
        """Hold so much memory of the device, as a model would: a new rank takes it again."""
        import torch

        self.held = torch.ones(hold_bytes, dtype=torch.uint8, device=self.device)

    def __call__(self, do: str = "", step_s: float = 0.0, **_: Any) -> float:
        """Work; each rank says once that it has begun."""
        pause = threading.Event()
        began = False
        while True:
            total = self.reduce()
            if not do:
                return total
            if not began:
                self.add_streaming_result(self.rank)
                began = True
            if do == HUNG and self.rank == self.world_size - 1:
                pause.wait()
            if do == VOTES:
                pause.wait(step_s)
                self.raise_if_cancelled()

    def reduce(self) -> float:
        """Sum over all ranks; returns when it is done."""
        import torch
        import torch.distributed as dist

        ones = torch.ones(ELEMENTS, device=self.device)
        dist.all_reduce(ones)
        return float(ones[0])


@dataclasses.dataclass(frozen=True)
class Figure:
    """Seconds from ``cancel()``, each time: until it returned, and until the next call had its answer."""

    world_size: int
    what: str
    limit_s: float
    returned_s: list[float]
    answered_s: list[float]

    @property
    def is_met(self) -> bool:
        """Whether the 99th percentile is within the limit."""
        return percentile(self.answered_s, 99) <= self.limit_s

    def __str__(self) -> str:
        p50, p99, most = statistics.median(self.answered_s), percentile(self.answered_s, 99), max(self.answered_s)
        return (
            f"  {self.what:42} n {len(self.answered_s):3}   p50 {p50:6.3f}  p99 {p99:6.3f}  max {most:6.3f} s"
            f"   (p99 at most {self.limit_s:g} s: {'met' if self.is_met else 'MISSED'})\n"
            f"    {'of it until cancel() returned':40}         p50 {statistics.median(self.returned_s):6.3f}"
            f"  p99 {percentile(self.returned_s, 99):6.3f}  max {max(self.returned_s):6.3f} s"
        )


def percentile(samples: list[float], percent: float) -> float:
    """The smallest sample that so many percent are not above."""
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]


async def cancelled(runner: DistributedRunner, do: str, step_s: float) -> tuple[float, float]:
    """Cancel one call that all ranks are in, and make another one."""
    begun: set[int] = set()
    all_begun = asyncio.Event()

    def on_event(event: RankEvent) -> None:
        begun.add(event.rank)
        if len(begun) == runner.world_size:
            all_begun.set()

    call = asyncio.create_task(runner.call({"do": do, "step_s": step_s}, on_event=on_event))
    await all_begun.wait()
    began = time.monotonic()
    await runner.cancel()
    returned = time.monotonic()
    if await runner.invoke() != runner.world_size:
        raise AssertionError("the next call gave a wrong sum")
    answered = time.monotonic()
    try:
        await call
    except CallCancelled:
        return returned - began, answered - began
    raise AssertionError("the call should have been cancelled")


async def measure(world_size: int, options: argparse.Namespace) -> list[Figure]:
    """Cancel what ``options`` say on one runner."""
    kills = [DEAF] if world_size == 1 else [DEAF, HUNG]
    counts = {VOTES: options.votes} | {do: math.ceil(options.kills / len(kills)) for do in kills}
    began = time.monotonic()
    runner = DistributedRunner(Busy, world_size, grace_s=options.grace_s)
    figures = []
    try:
        await runner.start(hold_bytes=int(options.hold_gib * 2**30))
        print(f"world size {world_size}, {time.monotonic() - began:.2f} s from start to ready", flush=True)
        for do, count in counts.items():
            pids = {rank.pid for rank in runner.status().ranks}
            samples = [await cancelled(runner, do, options.step_s) for _ in range(count)]
            if (do == VOTES) != (pids == {rank.pid for rank in runner.status().ranks}):
                raise AssertionError("ranks that vote stay, others do not")
            returned, answered = (list(each) for each in zip(*samples, strict=True))
            figures.append(Figure(world_size, do, VOTE_S if do == VOTES else KILL_S, returned, answered))
            print(figures[-1], flush=True)
    finally:
        await runner.stop()
    return figures


def machine() -> str:
    """Say what this runs on."""
    import torch

    gpus = torch.cuda.device_count()
    named = f"{gpus} {torch.cuda.get_device_name(0)}, NCCL" if gpus else "no GPU, gloo"
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {named}, {versions}, load {os.getloadavg()[0]:.1f}"


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world-sizes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--votes", type=int, default=50, help="cancels of ranks that vote, at each world size")
    parser.add_argument("--kills", type=int, default=10, help="cancels of ranks that do not, at each world size")
    parser.add_argument("--step-s", type=float, default=0.05, help="between two votes")
    parser.add_argument("--grace-s", type=float, default=2.0, help="the runner's, before it kills ranks")
    parser.add_argument("--hold-gib", type=float, default=0, help="memory that each rank holds on its device")
    parser.add_argument("--json", type=Path, help="write the samples there, too")
    options = parser.parse_args()
    print(machine())
    figures: list[Figure] = []
    for world_size in options.world_sizes:
        figures += asyncio.run(measure(world_size, options))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(figure) for figure in figures], indent=1))
    met = sum(figure.is_met for figure in figures)
    print(f"{met} of {len(figures)} thresholds met")
    return int(met < len(figures))


if __name__ == "__main__":
    sys.exit(main())
