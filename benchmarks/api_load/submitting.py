"""Submits by HTTP against bare inserts of the same rows, in turns, in the same Postgres."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from benchmarks.api_load.cores import Share
from benchmarks.api_load.ground import APP, ENDPOINT, INPUT
from benchmarks.api_load.place import Place
from benchmarks.api_load.settings import CONNECTIONS, Counts
from benchmarks.peers.figures import percentile_99


@dataclass
class Rates:
    """At so many connections: of each repeat jobs a second, and ms of a job."""

    connections: int
    submits: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    """Bare inserts whose statements share a round trip."""
    submit_ms: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def of_bare(self) -> float:
        """Submits for each bare insert, by the medians of the repeats."""
        return statistics.median(self.submits) / statistics.median(self.bare)

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        return (
            f"{self.connections:>2} connections: submits {_told(self.submits, self.submit_ms)}; bare inserts "
            f"{_told(self.bare, self.bare_ms)}: {self.of_bare:.0%}; in one round trip each "
            f"{statistics.median(self.together):,.0f}/s; of a core: {shares}"
        )


def _told(rates: list[float], taken_ms: list[float]) -> str:
    each = ", ".join(f"{rate:,.0f}" for rate in rates)
    return (
        f"{statistics.median(rates):,.0f}/s ({each}), p50 {statistics.median(taken_ms):.1f} ms, "
        f"p99 {percentile_99(taken_ms):.1f} ms"
    )


async def measure(place: Place, counts: Counts) -> AsyncIterator[Rates]:
    """Give both their turns, at each number of connections."""
    await place.submit(1)
    async with place.load() as load, place.api() as api:
        bare = {"do": "bare", "tenant_id": str(place.key.tenant_id), "key_id": place.key.id}
        body = {"app": APP, "endpoint": ENDPOINT, "input": INPUT}
        posts = {"do": "posts", "port": api.port, "key": place.key.key, "path": "/v1/jobs", "body": body}
        for connections in CONNECTIONS:
            rates = Rates(connections)
            for order in (bare, posts):
                await load.ask(**order, connections=connections, seconds=counts.submit_seconds / 6)
            for _ in range(counts.repeats):
                said = await load.ask(**bare, connections=connections, seconds=counts.submit_seconds)
                rates.bare.append(said["rate"])
                rates.bare_ms += said["taken_ms"]
                in_one = await load.ask(**bare, together=True, connections=connections, seconds=counts.submit_seconds)
                rates.together.append(in_one["rate"])
                share = Share(api.pid)
                told = await load.ask(**posts, connections=connections, seconds=counts.submit_seconds)
                rates.shares = {"API": share.now(), "load": told["cpu_share"], "load of bare": said["cpu_share"]}
                rates.submits.append(told["rate"])
                rates.submit_ms += told["taken_ms"]
            yield rates
