"""Events to thousands of clients: delay from rank to client, what is lost, memory of a client, and the highest rate."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from benchmarks.api_load.cores import Share, rss_bytes
from benchmarks.api_load.place import Place
from benchmarks.api_load.settings import DELAY_P99_MS, SILENCE_S, Counts
from benchmarks.peers.figures import percentile_99


@dataclass(frozen=True)
class Step:
    """One rate, for a while. Delays in ms, of log lines, of progress, of all; shares of one core."""

    rate: float
    p50: dict[str, float]
    p99: dict[str, float]
    rows_lost: int
    progress_lost: int
    out_of_order: int
    shares: dict[str, float]
    said_late_ms: float

    @property
    def holds(self) -> bool:
        """Whether the rate is one that the process serves."""
        return self.p99["all"] <= DELAY_P99_MS and not self.rows_lost and not self.out_of_order

    def __str__(self) -> str:
        delays = ", ".join(f"{kind} {self.p50[kind]:.0f} and {self.p99[kind]:.0f}" for kind in self.p50)
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        return (
            f"{self.rate:>7,.0f} deliveries/s: p50 and p99 ms: {delays}; lost rows {self.rows_lost}, progress "
            f"{self.progress_lost}; out of order {self.out_of_order}; of a core: {shares}; "
            f"said late by {self.said_late_ms:.0f} ms"
        )


@dataclass(frozen=True)
class FanOut:
    """All of it. ``client_kb``: memory of the API with all clients less that without, for each."""

    steps: list[Step]
    client_kb: float
    empty_mb: float

    def __str__(self) -> str:
        held = [step.rate for step in self.steps if step.holds]
        missed = [step.rate for step in self.steps if not step.holds]
        beyond = f"not at {missed[0]:,.0f}" if missed else "and no higher one was tried"
        return (
            f"a client takes {self.client_kb:.1f} kB (the process without any {self.empty_mb:.0f} MB); "
            f"p99 within {DELAY_P99_MS:.0f} ms at {max(held, default=0):,.0f} deliveries/s, {beyond}"
        )


async def measure(place: Place, counts: Counts) -> AsyncIterator[Step | FanOut]:
    """Yield each step as it is done, then all."""
    async with place.load() as load, place.node() as node, place.api() as api:
        await place.submit(counts.jobs)
        jobs = (await node.ask(do="claim", count=counts.jobs))["jobs"]
        # What the first streams load and open for good is no client's.
        await load.ask(do="open", ports=[api.port], key=place.key.key, jobs=jobs[:1], each=2)
        empty = rss_bytes(api.pid)
        opened = await load.ask(do="open", ports=[api.port], key=place.key.key, jobs=jobs, each=counts.listeners_a_job)
        client_kb = (rss_bytes(api.pid) - empty) / opened["open"] / 1000
        steps: list[Step] = []
        for rate in (counts.rate, *counts.steps):
            seconds = counts.seconds if rate == counts.rate else counts.step_seconds
            await load.ask(do="begin")
            shares = {"API": Share(api.pid), "load": Share(load.pid), "node": Share(node.pid)}
            said = await node.ask(do="speak", rate=rate, seconds=seconds)
            taken = {name: share.now() for name, share in shares.items()}
            heard = await load.ask(do="heard", at_least=said["each"], limit_s=SILENCE_S)
            steps.append(_step(rate * opened["open"], heard, taken, said["late_p99_ms"]))
            yield steps[-1]
            if not steps[-1].holds:
                break
        await node.ask(do="finish")
        await load.ask(do="heard", at_least={"final": 1}, limit_s=SILENCE_S)
    yield FanOut(steps, client_kb, empty / 1e6)


def _step(rate: float, heard: dict[str, Any], shares: dict[str, float], late_ms: float) -> Step:
    delays: dict[str, list[float]] = {"log": heard["delays_ms"]["log"], "progress": heard["delays_ms"]["progress"]}
    delays["all"] = delays["log"] + delays["progress"]
    return Step(
        rate=rate,
        p50={kind: statistics.median(values) for kind, values in delays.items()},
        p99={kind: percentile_99(values) for kind, values in delays.items()},
        rows_lost=max(0, heard["missing"]["log"]),
        progress_lost=heard["missing"]["progress"],
        out_of_order=heard["out_of_order"],
        shares=shares,
        said_late_ms=late_ms,
    )
