"""The node of the benchmark: it claims real jobs and says what 200 attempts' ranks would, by the node's own Reporter.

What is not there is an app host and ranks: an event enters where the node hands it on, with the stamp that a rank would
have given it. ``python -m benchmarks.api_load.ranks``, orders in, answers out.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.api_load.ground import ENDPOINT, NODE, publish
from benchmarks.api_load.orders import Order, serve
from benchmarks.peers.figures import percentile_99
from stoker import jobs, nodes
from stoker.bus import Bus
from stoker.database import make_engine
from stoker.events import EventKind
from stoker.jobs import ClaimRequest, QueueKey, Succeeded, Usage
from stoker.nodes import NodeInfo
from worker_node.attempt import Attempt
from worker_node.host_values import HostEvent
from worker_node.log_file import Spill
from worker_node.metrics import NodeMetrics
from worker_node.reporter import Reporter

LEASE_S = 3600.0
POOL_SIZE = 10


class Speaker:
    """One attempt: its Reporter, and how much it was given to report."""

    def __init__(self, attempt: Attempt, reporter: Reporter) -> None:
        self.attempt, self.reporter = attempt, reporter
        self._told = 0

    def speak(self) -> None:
        """Report progress and a log line in turn."""
        self._told += 1
        kind = (EventKind.LOG, EventKind.PROGRESS)[self._told % 2]
        said: dict[str, Any] = {"message": f"step {self._told}"} if kind is EventKind.LOG else {"step": self._told}
        self.reporter.report(HostEvent(kind, 0, {**said, "sent_at": time.time()}))


class Node:
    """What the orders ask for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._db = make_engine(os.environ["BENCH_DATABASE_URL"], application_name="bench-node", pool_size=POOL_SIZE)
        self._bus, self._metrics = Bus(os.environ["BENCH_REDIS_URL"]), NodeMetrics()
        self._speakers: list[Speaker] = []
        self._told = {"log": 0, "progress": 0}

    async def claim(self, count: int) -> dict[str, Any]:
        """Claim so many jobs and begin to report for each."""
        version, boot = await publish(self._db), uuid4()
        info = NodeInfo(NODE, boot, NODE, 1, [], [version.id], os.getpid(), "0", LEASE_S)
        await nodes.register(self._db, info)
        queues = (QueueKey(version.id, version.endpoint(ENDPOINT).uses_gpus),)
        loop = asyncio.get_running_loop()
        for _ in range(count):
            claim = await jobs.claim(self._db, ClaimRequest(NODE, boot, queues, "bench", LEASE_S))
            if claim is None:
                raise ValueError("there are fewer jobs than were to be claimed")
            await self._bus.wake(claim.job_id, claim.seq, claim.tenant_id)
            attempt = Attempt(claim, safe_until=loop.time() + LEASE_S)
            spill = Spill(self._folder / str(claim.job_id))
            reporter = Reporter(self._db, self._bus, attempt, self._metrics, spill)
            self._speakers.append(Speaker(attempt, await reporter.__aenter__()))
        return {"jobs": [str(speaker.attempt.claim.job_id) for speaker in self._speakers]}

    async def speak(self, rate: float, seconds: float) -> dict[str, Any]:
        """Have each report ``rate`` events a second, all evenly spread; how late they were said themselves, in ms."""
        late_ms, pace_s = [], 1 / (rate * len(self._speakers))
        rounds = max(2, round(rate * seconds / 2) * 2)  # as many of each kind
        began, number = time.monotonic(), 0
        for _ in range(rounds):
            for speaker in self._speakers:
                due = began + number * pace_s
                if (left_s := due - time.monotonic()) > 0 or number % len(self._speakers) == 0:
                    await asyncio.sleep(max(left_s, 0))
                speaker.speak()
                late_ms.append((time.monotonic() - due) * 1000)
                number += 1
        for kind in self._told:
            self._told[kind] += rounds // 2
        return {"each": dict(self._told), "late_p99_ms": percentile_99(late_ms)}

    async def finish(self) -> dict[str, Any]:
        """Let every job succeed."""
        for speaker in self._speakers:
            claim = speaker.attempt.claim
            await speaker.reporter.__aexit__()
            done = await jobs.finish(self._db, claim.lease, Succeeded({"of": str(claim.job_id)}), Usage())
            self._bus.tell(claim.job_id, done.seq, claim.tenant_id, is_final=True)
        return {"jobs": len(self._speakers)}


async def make() -> Mapping[str, Order]:
    """Make the node."""
    node = Node(Path(tempfile.mkdtemp(prefix="stoker-bench-")))
    return {"claim": node.claim, "speak": node.speak, "finish": node.finish}


if __name__ == "__main__":
    serve(make)
