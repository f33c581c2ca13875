"""Full-size SDXL with random weights: bare pipelines, our runner and fal's, side by side, one picture a rank a call.

python -m benchmarks.sdxl [--fal-site FOLDER]             on all GPUs; the folder holds fal and what it imports
python -m benchmarks.sdxl --model tiny --size 64 --steps 2   anywhere, to see that it runs

Every variant draws with ``sdxl_model`` and ends with the pictures as uint8 in the memory of a process. Variants take
turns within each repeat. fal is started for its turns only: its idle ranks wait in a collective, on the GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.lines import MeasuredProcess
from benchmarks.sdxl_model import Share, digest
from worker_node.distributed import DistributedRunner, DistributedWorker
from worker_node.gpus import list_gpus

Times = list[tuple[float, float]]

MIN_RATIO = 0.98
MAX_OVERHEAD = 0.01
SEED = 1000


class Pictures(Share, DistributedWorker):
    """The share of a rank as our worker."""


@dataclass
class Turns:
    """What one variant did in all repeats: seconds of each call, pictures a second of each repeat, its pictures."""

    name: str
    calls_s: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)
    spans: list[list[list[float]]] = field(default_factory=list)

    def add(self, times: Times, rate: float) -> None:
        """Note one repeat."""
        self.calls_s += [ended - began for began, ended in times]
        self.rates.append(rate)

    def line(self) -> str:
        """One row of the table."""
        p99 = statistics.quantiles(self.calls_s, n=100, method="inclusive")[-1]
        each = "  ".join(f"{rate:.3f}" for rate in self.rates)
        return (
            f"{self.name:32} {statistics.median(self.calls_s):7.4f} {p99:8.4f} {statistics.median(self.rates):9.3f}"
            f"   {each}   ({len(self.calls_s)} calls)"
        )


class Bench:
    """The processes of all variants, and their turns."""

    def __init__(self, arguments: argparse.Namespace, world_size: int, on_gpus: bool) -> None:
        self.world_size, self._arguments, self._on_gpus = world_size, arguments, on_gpus
        self._how = {name: getattr(arguments, name) for name in ("model", "size", "steps", "eager")}
        self.bare = Turns("one bare process")
        self.invoke = Turns("invoke, world size 1")
        self.beside = Turns(f"{world_size} bare processes side by side")
        self.ours = Turns(f"invoke, world size {world_size}")
        self.fal = Turns(f"fal.distributed, world size {world_size}")

    async def start(self) -> None:
        """Load everything that stays."""
        bare = [
            MeasuredProcess.start(
                "benchmarks.peers.sdxl_bare", json.dumps(self._how), env={"CUDA_VISIBLE_DEVICES": str(gpu)}
            )
            for gpu in range(self.world_size)
        ]
        self._bare = await asyncio.gather(*bare)
        self._alone = DistributedRunner(Pictures, 1, devices=[0] if self._on_gpus else [])
        self._runner = DistributedRunner(Pictures, self.world_size)
        await asyncio.gather(
            *(runner.start(**self._how) for runner in (self._alone, self._runner)),
            *(process.ask(count=2, seed=0) for process in self._bare),
        )
        for runner in (self._alone, self._runner):
            for _ in range(2):
                await runner.invoke({"seed": 0})
            await runner.invoke({"spans": True})

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(self._alone.stop(), self._runner.stop(), *(process.stop() for process in self._bare))

    async def one_by_one(self, pairs: int) -> None:
        """The bare pipeline and an invoke of one rank in turn, on the same GPU."""
        bare: Times = []
        invoked: Times = []
        for seed in range(SEED, SEED + pairs):
            answer = await self._bare[0].ask(count=1, seed=seed)
            bare += answer["times"]
            self.bare.digests[seed] = answer["digests"][0]
            invoked += await self._invoke(self._alone, [seed], self.invoke)
        for turns, times in ((self.bare, bare), (self.invoke, invoked)):
            turns.add(times, len(times) / sum(ended - began for began, ended in times))

    async def bare_side_by_side(self, calls: int) -> None:
        """All bare processes at once; the rate is the sum of theirs, none waits for another."""
        asked = [process.ask(count=calls, seed=SEED + gpu) for gpu, process in enumerate(self._bare)]
        answers = await asyncio.gather(*asked)
        rates = [calls / (answer["times"][-1][1] - answer["times"][0][0]) for answer in answers]
        self.beside.add([pair for answer in answers for pair in answer["times"]], sum(rates))
        print("  bare, pictures/s by GPU:", "  ".join(f"{rate:.4f}" for rate in rates))

    async def ours_together(self, calls: int) -> None:
        """Our runner on all GPUs."""
        seeds = range(SEED, SEED + calls * self.world_size, self.world_size)
        times = await self._invoke(self._runner, seeds, self.ours)
        self.ours.add(times, calls * self.world_size / (times[-1][1] - times[0][0]))
        self.ours.spans += (await self._runner.invoke({"spans": True}))["spans"]

    async def fal_together(self, calls: int) -> None:
        """The runner of fal on all GPUs."""
        path = os.pathsep.join([self._arguments.fal_site, *filter(None, sys.path)])
        process = await MeasuredProcess.start(
            "benchmarks.peers.sdxl_fal", str(self.world_size), json.dumps(self._how), env={"PYTHONPATH": path}
        )
        await process.ask(count=2, seed=0)
        answer = await process.ask(count=calls, seed=SEED)
        times = answer["times"]
        self.fal.add(times, calls * self.world_size / (times[-1][1] - times[0][0]))
        self.fal.digests |= {SEED + number: digest for number, digest in enumerate(answer["digests"])}
        self.fal.spans += answer["spans"]
        await process.stop()

    async def _invoke(self, runner: DistributedRunner, seeds: Sequence[int], turns: Turns) -> Times:
        times, results = [], []
        for seed in seeds:
            began = time.monotonic()
            results.append((await runner.invoke({"seed": seed}))["pictures"])
            times.append((began, time.monotonic()))
        # Only now: it takes as long as what is measured.
        for seed, pictures in zip(seeds, results, strict=True):
            turns.digests |= {seed + rank: digest(picture) for rank, picture in enumerate(pictures)}
        return times


def where_a_call_went(turns: Turns) -> str:
    """Take a call apart, in medians: what the ranks did, and what was left for the way to them and back."""
    world_size = len(turns.spans) // len(turns.rates)
    by_repeat = [turns.spans[at : at + world_size] for at in range(0, len(turns.spans), world_size)]
    calls = [call for repeat in by_repeat for call in zip(*repeat, strict=True)]
    slowest = [max(drawn - began for began, drawn, *_ in call) for call in calls]
    mean = [statistics.mean(drawn - began for began, drawn, *_ in call) for call in calls]
    # From the moment at which the last rank had drawn.
    gather = [call[0][2] - max(drawn for _, drawn, *_ in call) for call in calls]
    copy = [call[0][3] - call[0][2] for call in calls]
    skew = [max(began for began, *_ in call) - min(began for began, *_ in call) for call in calls]
    inside = [call[0][3] - min(began for began, *_ in call) for call in calls]
    rest = [taken - ranks for taken, ranks in zip(turns.calls_s, inside, strict=True)]
    by_rank = [statistics.median(call[rank][1] - call[rank][0] for call in calls) for rank in range(world_size)]
    parts = {
        "drawing, mean rank": mean,
        "drawing, slowest rank": slowest,
        "ranks begin apart": skew,
        "gather": gather,
        "GPU to memory": copy,
        "way there and back": rest,
    }
    told = "  ".join(f"{name} {statistics.median(taken) * 1000:.2f}" for name, taken in parts.items())
    ranks = "  ".join(f"{drawing * 1000:.1f}" for drawing in by_rank)
    return f"{turns.name}, ms: {told}  (drawing by rank {ranks})"


def judged(what: str, value: float, limit: float, holds: bool) -> str:
    """Say whether a threshold holds."""
    return f"{what}: {value:.2%} (threshold {limit:.0%}): {'holds' if holds else 'MISSED'}"


def report(bench: Bench) -> None:
    """Print the tables."""
    variants = [turns for turns in (bench.bare, bench.invoke, bench.beside, bench.ours, bench.fal) if turns.rates]
    print(f"\n{'':32} {'p50 s':>7} {'p99 s':>8} {'images/s':>9}   by repeat")
    for turns in variants:
        print(turns.line())
    for turns in (bench.ours, bench.fal):
        if turns.spans:
            print(where_a_call_went(turns))
    by_repeat = zip(bench.ours.rates, bench.beside.rates, strict=True)
    ratio = statistics.median(ours / beside for ours, beside in by_repeat)
    print(judged("images/s of invoke beside as many bare processes", ratio, MIN_RATIO, ratio >= MIN_RATIO))
    if bench.fal.rates:
        theirs = statistics.median(f / b for f, b in zip(bench.fal.rates, bench.beside.rates, strict=True))
        print(f"images/s of fal.distributed beside as many bare processes: {theirs:.2%}")
    bare, invoked = statistics.median(bench.bare.calls_s), statistics.median(bench.invoke.calls_s)
    overhead = invoked / bare - 1
    what = f"what one invoke adds to the bare pipeline, {(invoked - bare) * 1000:.2f} ms"
    print(judged(what, overhead, MAX_OVERHEAD, overhead < MAX_OVERHEAD))
    for turns in (bench.invoke, bench.ours, bench.fal):
        common = bench.bare.digests.keys() & turns.digests.keys()
        if common:
            equal = sum(bench.bare.digests[seed] == turns.digests[seed] for seed in common)
            print(f"pictures of the bare process that {turns.name} drew bit for bit: {equal} of {len(common)}")


async def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["base", "tiny"], default="base")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--eager", action="store_true", help="launch the UNet kernel by kernel, as diffusers does")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--calls", type=int, default=8, help="of each variant in a repeat")
    parser.add_argument("--world-size", type=int, help="default: all GPUs; 2 where there is none")
    parser.add_argument("--fal-site", help="folder with fal and what it imports")
    arguments = parser.parse_args()
    gpus = list_gpus()
    world_size = arguments.world_size or len(gpus) or 2
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // world_size)))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    bench = Bench(arguments, world_size, bool(gpus))
    began = time.monotonic()
    await bench.start()
    how = "kernel by kernel" if arguments.eager or not gpus else "UNet as a CUDA graph"
    print(f"{arguments.model}, {arguments.size} px, {arguments.steps} steps, {how}; {len(gpus)} GPUs,", end=" ")
    print(f"world size {world_size}, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']};", end=" ")
    print(f"all loaded after {time.monotonic() - began:.1f} s")
    turns = [bench.bare_side_by_side, bench.ours_together, *([bench.fal_together] if arguments.fal_site else [])]
    for repeat in range(arguments.repeats):
        print(f"repeat {repeat + 1}, load average {os.getloadavg()[0]:.1f}", flush=True)
        await bench.one_by_one(arguments.calls)
        for at in range(len(turns)):
            await turns[(at + repeat) % len(turns)](arguments.calls)
    await bench.stop()
    report(bench)


if __name__ == "__main__":
    asyncio.run(main())
