"""Figures: samples by world size, measure and peer, kept by repeat; and what stands in a table of them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

HUNDREDTHS = 100


class Key(NamedTuple):
    """Whose samples of what."""

    world_size: int
    measure: str
    peer: str


class Figures:
    """All samples of a run."""

    def __init__(self) -> None:
        self._samples: dict[Key, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, key: Key, repeat: int, samples: Sequence[float]) -> None:
        """Keep what was measured in a repeat."""
        self._samples[key][repeat] += samples

    def has(self, key: Key) -> bool:
        """Tell whether there are samples."""
        return key in self._samples

    def typical(self, key: Key) -> float:
        """Return the median of the repeats' medians."""
        return statistics.median(statistics.median(samples) for samples in self._samples[key].values())

    def p99(self, key: Key) -> float:
        """Return the worst of the repeats' 99th percentiles."""
        return max(percentile_99(samples) for samples in self._samples[key].values())

    def most(self, key: Key) -> float:
        """Return the largest sample."""
        return max(max(samples) for samples in self._samples[key].values())

    def least(self, key: Key) -> float:
        """Return the smallest sample."""
        return min(min(samples) for samples in self._samples[key].values())

    def described(self) -> list[dict[str, object]]:
        """Return all of it for a file."""
        return [
            {
                **key._asdict(),
                "typical": self.typical(key),
                "p99": self.p99(key),
                "repeats": [
                    {"median": statistics.median(samples), "p99": percentile_99(samples), "count": len(samples)}
                    for samples in repeats.values()
                ],
            }
            for key, repeats in self._samples.items()
        ]


def percentile_99(samples: Sequence[float]) -> float:
    """Return the 99th percentile; of few samples the largest, never more."""
    if len(samples) == 1:
        return samples[0]
    return statistics.quantiles(samples, n=HUNDREDTHS, method="inclusive")[-1]
