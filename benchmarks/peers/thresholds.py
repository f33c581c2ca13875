"""What the runner has to show: each threshold as a plain comparison of two figures of the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.peers.figures import Figures, Key

# By world size; at others a call has no threshold.
TIMES_RAW = {1: 3.0, 2: 6.0}
TIMES_QUICKER = {1: 100.0, 2: 50.0}
EVENT_MS, EVENTS_A_SECOND = 2.0, 50_000.0
RESULT_TIMES_QUICKER = 5.0
NOTICED_MS = 100.0
TIMES_BARE = 1.2
WAYS = {"stream": "stream()", "call": "call(on_event=)"}


@dataclass(frozen=True)
class Verdict:
    """A threshold, and what was measured; None where it was not."""

    world_size: int
    measure: str
    wanted: str
    value: float | None
    is_met: bool

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:,.2f}"
        return f"{'met   ' if self.is_met else 'MISSED'} {self.measure}: {self.wanted}: {value}"


def verdicts(figures: Figures, world_size: int, *, calls: bool) -> Iterator[Verdict]:
    """Judge one world size; ``calls``: more than starts was measured."""

    def typical(measure: str, peer: str) -> float | None:
        key = Key(world_size, measure, peer)
        return figures.typical(key) if figures.has(key) else None

    def most(measure: str) -> float | None:
        key = Key(world_size, measure, "ours")
        return figures.most(key) if figures.has(key) else None

    def at_most(measure: str, wanted: str, value: float | None, limit: float) -> Verdict:
        return Verdict(world_size, measure, f"{wanted} at most {limit:g}", value, value is not None and value <= limit)

    def at_least(measure: str, wanted: str, value: float | None, limit: float) -> Verdict:
        return Verdict(world_size, measure, f"{wanted} at least {limit:g}", value, value is not None and value >= limit)

    for measure in ("start", "rebuild"):
        times = quotient(typical(measure, "ours"), typical("start", "bare"))
        yield at_most(measure, "times bare torch", times, TIMES_BARE)
    for when in ("in a call", "idle"):
        if when == "idle" or calls:
            yield at_most(f"death noticed, {when}", "worst, ms,", most(f"death noticed, {when}"), NOTICED_MS)
    if not calls:
        return
    if world_size in TIMES_RAW:
        ours = typical("empty call", "ours")
        yield at_most("empty call", "times raw", quotient(ours, typical("empty call", "raw")), TIMES_RAW[world_size])
        quicker = quotient(typical("empty call", "fal"), ours)
        yield at_least("empty call", "times quicker than fal", quicker, TIMES_QUICKER[world_size])
    for way in WAYS.values():
        yield at_most(f"event, {way}", "p50, ms,", typical(f"event, {way}", "ours"), EVENT_MS)
        burst = f"burst, {way}"
        yield at_least(burst, "events a second", typical(burst, "ours"), EVENTS_A_SECOND)
        yield at_most(burst, "lost, out of order or in another call,", most(f"{burst}, wrong"), 0)
    quicker = quotient(typical("32 MiB result", "fal"), typical("32 MiB result", "ours"))
    yield at_least("32 MiB result", "times quicker than fal", quicker, RESULT_TIMES_QUICKER)


def quotient(value: float | None, by: float | None) -> float | None:
    """Divide, where there is something to divide."""
    return None if value is None or by is None else value / by
