"""fal.distributed as it is measured, in an environment of its own, where nothing of Stoker but this folder is found.

It knows NCCL on GPUs and nothing else. Where there is no GPU it is made to run on gloo here, from outside: its process
group is asked for by another name, and its choice of a GPU does nothing. The rest is its own, unchanged. On a machine
with GPUs nothing is changed at all.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import torch
import torch.distributed as dist
from fal.distributed import DistributedRunner, DistributedWorker  # type: ignore[import-not-found] # in its own environment only

from benchmarks.peers import measures
from benchmarks.peers.work import work

ON_GPU = torch.cuda.is_available()


def patch() -> None:
    """Have ``init_process_group("nccl", device_id=cuda)`` mean gloo, and ``torch.cuda.set_device`` nothing."""
    join = dist.init_process_group

    def join_gloo(backend: str, device_id: torch.device, **others: Any) -> None:  # noqa: ARG001 - what it passes
        join("gloo", **others)

    vars(dist)["init_process_group"] = join_gloo
    vars(torch.cuda)["set_device"] = lambda _device: None


# Here, because its ranks are new interpreters, which import this module to find the class of the worker: before they
# enter the group.
if not ON_GPU:
    patch()


class TheirWorker(DistributedWorker):  # type: ignore[misc] # unknown here, see the import
    """Does what the payload says."""

    @property
    def device(self) -> torch.device:
        """Its own says cuda in any case."""
        return super().device if ON_GPU else torch.device("cpu")

    def __call__(self, streaming: bool = False, **wanted: Any) -> Any:  # noqa: ARG002 - given to every worker
        """Serve one call."""
        return work(self, **wanted)

    def flush(self) -> None:
        """Let its queue run empty: it drops what is queued when a call returns."""
        while not self.queue.empty():
            time.sleep(0.01)
        time.sleep(0.1)


class Theirs:
    """One runner of fal's."""

    async def start(self, world_size: int) -> float:
        """Start it, at a port of its own; return the seconds until it was ready."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        began = time.monotonic()
        self._runner = DistributedRunner(TheirWorker, world_size, master_port=port)
        await self._runner.start(timeout=120)
        return time.monotonic() - began

    async def noop(self, count: int) -> list[float]:
        """Measure empty calls."""
        return await measures.times_ms(count, self._runner.invoke)

    async def latency(self, count: int, pace_s: float) -> list[float]:
        """Measure paced events."""
        return await measures.latencies_ms(measures.through_stream(self._runner), count, pace_s)

    async def burst(self, count: int, flush: bool) -> dict[str, float]:
        """Measure a burst of events; with ``flush`` the worker waits until its queue is empty."""
        return await measures.burst(measures.through_stream(self._runner), count, flush=flush)

    async def result(self, count: int, size_bytes: int) -> list[float]:
        """Measure large results."""
        return await measures.results_ms(self._runner, count, size_bytes)

    async def payload(self, count: int, size_bytes: int) -> list[float]:
        """Measure large payloads."""
        return await measures.payloads_ms(self._runner, count, size_bytes)

    async def stop(self) -> None:
        """End its ranks."""
        self._runner.terminate()
