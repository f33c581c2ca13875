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
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.lines import MeasuredProcess
from benchmarks.sdxl_model import Share, digest
from benchmarks.sdxl_report import Times, Turns, report
from worker_node.distributed import DistributedRunner, DistributedWorker
from worker_node.gpus import list_gpus

SEED = 1000


class Pictures(Share, DistributedWorker):
    """The share of a rank as our worker."""


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
        await asyncio.gather(*(process.ask(count=1, seed=0) for process in self._bare))
        asked = [process.ask(count=calls, seed=SEED + gpu) for gpu, process in enumerate(self._bare)]
        answers = await asyncio.gather(*asked)
        rates = [calls / (answer["times"][-1][1] - answer["times"][0][0]) for answer in answers]
        self.beside.add([pair for answer in answers for pair in answer["times"]], sum(rates))
        print("  by GPU:", "  ".join(f"{rate:.4f}" for rate in rates))

    async def ours_together(self, calls: int) -> None:
        """Our runner on all GPUs."""
        await self._runner.invoke({"seed": 0})
        await self._runner.invoke({"spans": True})
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
    parser.add_argument("--fal-repeats", type=int, default=3, help="in how many repeats fal takes its turn")
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
    for repeat in range(arguments.repeats):
        print(f"repeat {repeat + 1}, load average {os.getloadavg()[0]:.1f}", flush=True)
        await bench.one_by_one(arguments.calls)
        turns = [bench.bare_side_by_side, bench.ours_together]
        if arguments.fal_site and repeat < arguments.fal_repeats:
            turns.append(bench.fal_together)
        for at in range(len(turns)):
            await turns[(at + repeat) % len(turns)](arguments.calls)
    report(bench.bare, bench.invoke, bench.beside, bench.ours, bench.fal)
    await bench.stop()


if __name__ == "__main__":
    asyncio.run(main())
