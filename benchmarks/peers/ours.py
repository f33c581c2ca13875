"""Our runner as it is measured: only its public interface."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from benchmarks.peers import measures
from benchmarks.peers.work import work
from worker_node.distributed import (
    DistributedRunner,
    DistributedWorker,
    RankDied,
    RankEvent,
    RankState,
    RunnerState,
    RunnerStatus,
)


class OurWorker(DistributedWorker):
    """Does what the payload says."""

    def __call__(self, streaming: bool = False, **wanted: Any) -> Any:  # noqa: ARG002 - given to every worker
        """Serve one call."""
        return work(self, **wanted)

    def flush(self) -> None:
        """Nothing is lost here, whenever a call returns."""


class Ours:
    """One runner after the other."""

    async def start(self, world_size: int) -> float:
        """Start a runner; return the seconds until it was ready."""
        self._moments: dict[str, float] = {}
        self._seen = asyncio.Event()
        began = time.monotonic()
        self._runner = DistributedRunner(OurWorker, world_size, on_change=self._on_change)
        await self._runner.start()
        return time.monotonic() - began

    async def noop(self, count: int) -> list[float]:
        """Measure empty calls."""
        return await measures.times_ms(count, self._runner.invoke)

    async def latency(self, way: str, count: int, pace_s: float) -> list[float]:
        """Measure paced events."""
        return await measures.latencies_ms(self._listen(way), count, pace_s)

    async def burst(self, way: str, count: int) -> dict[str, float]:
        """Measure a burst of events."""
        return await measures.burst(self._listen(way), count)

    async def result(self, count: int, size_bytes: int) -> list[float]:
        """Measure large results."""
        return await measures.results_ms(self._runner, count, size_bytes)

    async def payload(self, count: int, size_bytes: int) -> list[float]:
        """Measure large payloads."""
        return await measures.payloads_ms(self._runner, count, size_bytes)

    async def death_idle(self) -> dict[str, float]:
        """Kill the last rank while nothing runs: ms until ``on_change`` tells, s until the ranks are warm again."""
        killed = self._kill()
        await self._next("warm")
        return {"noticed_ms": (self._moments["lost"] - killed) * 1000, "rebuilt_s": self._moments["warm"] - killed}

    async def death_in_call(self) -> dict[str, float]:
        """Kill the last rank while all are in a call: ms until the caller has the error, s until they are warm."""
        killed = 0.0

        def on_event(_event: RankEvent) -> None:
            nonlocal killed
            killed = self._kill()

        try:
            await self._runner.call({"do": "sit"}, on_event=on_event)
        except RankDied:
            noticed = time.monotonic()
        await self._next("warm")
        return {"noticed_ms": (noticed - killed) * 1000, "rebuilt_s": self._moments["warm"] - killed}

    async def stop(self) -> None:
        """Stop the runner."""
        await self._runner.stop()

    def _listen(self, way: str) -> measures.Listen:
        if way == "stream":
            return measures.through_stream(self._runner)

        async def listen(payload: dict[str, Any], hear: measures.Hear) -> None:
            await self._runner.call(payload, on_event=lambda event: hear(event.data))

        return listen

    def _kill(self) -> float:
        pid = self._runner.status().ranks[-1].pid
        self._moments.clear()
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return killed

    async def _next(self, moment: str) -> None:
        while moment not in self._moments:
            self._seen.clear()
            await self._seen.wait()
        # What was noted of the one before is forgotten only by a call that succeeds.
        await self._runner.invoke()

    def _on_change(self, status: RunnerStatus) -> None:
        lost = status.state is RunnerState.REBUILDING or any(rank.state is RankState.DEAD for rank in status.ranks)
        if lost:
            self._moments.setdefault("lost", time.monotonic())
        elif "lost" in self._moments and status.state is RunnerState.WARM:
            self._moments.setdefault("warm", time.monotonic())
        self._seen.set()
