"""Bounds: whether samples of a process show a leak.

Pure. Memory and objects are judged by the slope of a straight line through the samples, which a leak bends and noise
does not; things that are counted, such as descriptors, by how many there are at the end and at the beginning.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Below this a half has too few points for a line.
_FEWEST = 8


@dataclass(frozen=True)
class Verdict:
    """What was measured of what, and how much would have been allowed."""

    what: str
    value: float
    limit: float
    unit: str
    samples: int

    @property
    def is_broken(self) -> bool:
        """Whether this is a leak."""
        return self.value > self.limit


def slope(calls: Sequence[float], values: Sequence[float]) -> float:
    """Growth for each call by least squares; 0 where there is no line."""
    if len(set(calls)) < 2:
        return 0.0
    return statistics.linear_regression(calls, values).slope


def growth(calls: Sequence[float], values: Sequence[float]) -> float:
    """The slope that the whole and both of its halves have at least.

    A leak grows in each half. A cache that fills or an arena that is taken once bends the line in one half alone.
    """
    middle = len(calls) // 2
    if middle < _FEWEST:
        return slope(calls, values)
    halves = (slice(None, middle), slice(middle, None))
    return min(slope(calls, values), *(slope(calls[half], values[half]) for half in halves))


def grown(values: Sequence[float]) -> float:
    """How much more the last quarter has than the first, by medians."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[-quarter:]) - statistics.median(values[:quarter]) if values else 0.0


def judge_growth(what: str, unit: str, limit: float, calls: Sequence[float], values: Sequence[float]) -> Verdict:
    """Judge what is measured, such as memory."""
    return Verdict(what, growth(calls, values), limit, f"{unit} a call", len(values))


def judge_count(what: str, limit: float, values: Sequence[float]) -> Verdict:
    """Judge what is counted, such as descriptors."""
    return Verdict(what, grown(values), limit, "more", len(values))


def table(verdicts: Sequence[Verdict]) -> str:
    """Write the verdicts for people."""
    rows = [("", "measured", "allowed", "", "samples", "")]
    rows += [
        (each.what, f"{each.value:,.2f}", f"{each.limit:,.2f}", each.unit, str(each.samples), _word(each))
        for each in verdicts
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in (0, 3, 5) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _word(verdict: Verdict) -> str:
    return "BROKEN" if verdict.is_broken else "ok"
