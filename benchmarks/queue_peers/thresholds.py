"""What a run of ``queues`` has to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.peers.figures import Figures, Key
from benchmarks.peers.thresholds import Verdict

ENTRY, RATE = "call to function, ms", "end to end, jobs/s"
ENTRY_P50_MS, ENTRY_P99_MS = 10.0, 50.0
TO_BEAT = "celery sqlalchemy"
FLAT = 1.5


def verdicts(figures: Figures, claims: Mapping[str, Mapping[int, float]]) -> Iterator[Verdict]:
    """Judge a run; ``claims``: p50 by case and number of queued rows."""
    for name in ("stoker, warm rank", "stoker"):
        key = Key(1, ENTRY, name)
        p50, p99 = (figures.typical(key), figures.p99(key)) if figures.has(key) else (None, None)
        yield at_most(f"{name}, {ENTRY}", "p50", p50, ENTRY_P50_MS)
        yield at_most(f"{name}, {ENTRY}", "p99", p99, ENTRY_P99_MS)
    for slots in (1, 8):
        ours, theirs = Key(slots, RATE, "stoker"), Key(slots, RATE, TO_BEAT)
        value = figures.typical(ours) if figures.has(ours) else None
        least = figures.typical(theirs) if figures.has(theirs) else None
        wanted = (
            f"{slots} slots, at least Celery's with SQLAlchemy, {'not measured' if least is None else f'{least:,.0f}'}"
        )
        is_met = value is not None and least is not None and value >= least
        yield Verdict(slots, RATE, wanted, value, is_met)
    for case, by_rows in claims.items():
        least_rows = min(by_rows)
        for rows, p50 in by_rows.items():
            if rows != least_rows:
                times = f"{rows:,} rows against {least_rows:,}, times"
                yield at_most(f"claim, {case}", times, p50 / by_rows[least_rows], FLAT)


def at_most(measure: str, wanted: str, value: float | None, limit: float) -> Verdict:
    """Judge one figure."""
    return Verdict(0, measure, f"{wanted} at most {limit:g}", value, value is not None and value <= limit)
