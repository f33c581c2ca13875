"""Polls of states at a steady rate, with nothing else to do."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass

from benchmarks.api_load.cores import Share
from benchmarks.api_load.ground import APP
from benchmarks.api_load.place import Place
from benchmarks.api_load.settings import Counts
from benchmarks.peers.figures import percentile_99

WAYS = {"GET /v1/jobs/{id}": "/v1/jobs/{}", "fal's /status": "/queue/" + APP + "/requests/{}/status"}


@dataclass(frozen=True)
class Polled:
    """One way of asking. From when a poll was due to the end of its answer."""

    way: str
    rate: float
    p50_ms: float
    p99_ms: float
    failed: int
    api_share: float
    load_share: float

    def __str__(self) -> str:
        return (
            f"{self.way:18} {self.rate:,.0f} a second: p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, "
            f"failed {self.failed}; of a core: API {self.api_share:.0%}, load {self.load_share:.0%}"
        )


async def measure(place: Place, counts: Counts) -> AsyncIterator[Polled]:
    """Poll running jobs, first natively, then as fal's clients do."""
    async with place.load() as load, place.node() as node, place.api() as api:
        await place.submit(counts.jobs)
        jobs = (await node.ask(do="claim", count=counts.jobs))["jobs"]
        for way, path in WAYS.items():
            asked = {"port": api.port, "key": place.key.key, "paths": [path.format(job) for job in jobs]}
            await load.ask(do="paced", rate=counts.polls / 5, seconds=counts.poll_seconds / 10, **asked)
            share = Share(api.pid)
            said = await load.ask(do="paced", rate=counts.polls, seconds=counts.poll_seconds, **asked)
            taken = said["taken_ms"]
            failed = said["refused"] + said["unanswered"]
            yield Polled(
                way,
                counts.polls,
                statistics.median(taken),
                percentile_99(taken),
                failed,
                share.now(),
                said["cpu_share"],
            )
        await node.ask(do="finish")
