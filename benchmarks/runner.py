"""How fast the runner is, beside a raw ZMQ round trip of the same run: empty calls, events, a large result, a start.

OMP_NUM_THREADS=1 python benchmarks/runner.py [--world-sizes 1 2] [--calls 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import zmq
import zmq.asyncio

from worker_node.distributed import DistributedRunner, DistributedWorker, RankEvent

ECHO = """
import sys, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(sys.argv[1])
socket.send(b"")
while True:
    socket.send(socket.recv())
"""

IMPORT = """
import os, torch, torch.distributed as dist
store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True)
dist.init_process_group("gloo", store=store, rank=0, world_size=1)
"""


class Bench(DistributedWorker):
    """Does nothing, adds events, or returns many bytes."""

    def __call__(self, events: int = 0, result_bytes: int = 0, paced_s: float = 0) -> Any:
        """Serve one call."""
        if self.rank == 0:
            for number in range(events):
                if paced_s:
                    time.sleep(paced_s)
                self.add_streaming_result({"number": number, "sent": time.monotonic()})
        if result_bytes:
            import torch

            return torch.zeros(result_bytes, dtype=torch.uint8)
        return None


async def timed(count: int, act: Callable[[], Awaitable[Any]]) -> str:
    """Run ``act`` so often and describe how long each took."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - began) * 1000)
    return described(taken)


def described(taken_ms: list[float]) -> str:
    """Say median and 99th percentile."""
    return f"p50 {statistics.median(taken_ms):7.3f} ms   p99 {statistics.quantiles(taken_ms, n=100)[-1]:7.3f} ms"


async def raw(calls: int) -> None:
    """Measure zmq.asyncio alone, against a process that sends back what it gets."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/raw"
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.ROUTER)
        socket.bind(address)
        echo = await asyncio.create_subprocess_exec(sys.executable, "-c", ECHO, address)
        name, _ = await socket.recv_multipart()

        async def round_trip() -> None:
            await socket.send_multipart([name, b"x" * 60])
            await socket.recv_multipart()

        await timed(calls // 10, round_trip)
        print(f"raw asyncio zmq round trip      {await timed(calls, round_trip)}")
        echo.kill()
        await echo.wait()
        context.destroy(linger=0)


async def ours(world_size: int, calls: int) -> None:
    """Measure one runner."""
    print(f"world size {world_size}")
    began = time.perf_counter()
    runner = DistributedRunner(Bench, world_size)
    await runner.start()
    print(f"  start to ready                {time.perf_counter() - began:.2f} s")
    await timed(calls // 10, runner.invoke)
    print(f"  empty call                    {await timed(calls, runner.invoke)}")
    latencies: list[float] = []

    def heard(event: RankEvent) -> None:
        latencies.append((time.monotonic() - event.data["sent"]) * 1000)

    await runner.call({"events": 200, "paced_s": 0.005}, on_event=heard)
    print(f"  event, worker to listener     {described(latencies)}")
    latencies.clear()
    began = time.perf_counter()
    await runner.call({"events": 50_000}, on_event=heard)
    print(f"  events in a burst             {len(latencies) / (time.perf_counter() - began):,.0f} a second")
    # The first tensor imports torch into this process.
    await runner.invoke({"result_bytes": 1})
    big = await timed(10, lambda: runner.invoke({"result_bytes": 32 << 20}))
    print(f"  32 MiB tensor as result       {big}")
    await runner.stop()


def bare_start(world_size: int) -> float:
    """Time so many interpreters that import torch and enter a process group, side by side."""
    began = time.perf_counter()
    processes = [subprocess.Popen([sys.executable, "-c", IMPORT]) for _ in range(world_size)]
    for process in processes:
        process.wait()
    return time.perf_counter() - began


async def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world-sizes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--calls", type=int, default=2000)
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}")
    await raw(arguments.calls)
    for world_size in arguments.world_sizes:
        print(f"bare torch import and group, {world_size} side by side, to their exit: {bare_start(world_size):.2f} s")
        await ours(world_size, arguments.calls)


if __name__ == "__main__":
    asyncio.run(main())
