"""What a run of ``api`` has to show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.api_load.fan_out import FanOut
from benchmarks.api_load.polling import Polled
from benchmarks.api_load.replicas import Survived
from benchmarks.api_load.settings import CLIENT_KB, DELAY_P99_MS, OF_BARE, POLL_P99_MS
from benchmarks.api_load.submitting import Rates
from benchmarks.peers.thresholds import Verdict


def of_fan_out(found: FanOut) -> Iterator[Verdict]:
    """Judge the first step; the later ones say how far it goes."""
    first = found.steps[0]
    yield at_most("rank to client", "p99, ms,", first.p99["all"], DELAY_P99_MS)
    yield at_most("rank to client", "rows lost", first.rows_lost, 0)
    yield at_most("rank to client", "progress lost", first.progress_lost, 0)
    yield at_most("rank to client", "rows twice or out of order", first.out_of_order, 0)
    yield at_most("memory of a client", "kB", found.client_kb, CLIENT_KB)


def of_polls(found: Iterable[Polled]) -> Iterator[Verdict]:
    """Judge both ways of asking."""
    for polled in found:
        yield at_most(polled.way, "p99, ms,", polled.p99_ms, POLL_P99_MS)
        yield at_most(polled.way, "failed", polled.failed, 0)


def of_submits(found: Iterable[Rates]) -> Iterator[Verdict]:
    """Judge submits against bare inserts."""
    for rates in found:
        least = OF_BARE[rates.connections]
        wanted = f"{rates.connections} connections, of bare inserts at least {least:.0%}"
        yield Verdict(rates.connections, "submits", wanted, rates.of_bare, rates.of_bare >= least)


def of_replicas(found: Iterable[Survived]) -> Iterator[Verdict]:
    """Judge what clients of a replica that ended have missed."""
    for each in found:
        for what, count in (("rows missed", each.missed), ("rows twice or out of order", each.out_of_order)):
            yield at_most(each.how, what, count, 0)
        yield at_most(each.how, "clients without the final result", each.without_result, 0)


def at_most(measure: str, wanted: str, value: float, limit: float) -> Verdict:
    """Judge one figure."""
    return Verdict(1, measure, f"{wanted} at most {limit:g}", value, value <= limit)
