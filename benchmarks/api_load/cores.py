"""Which core a process of the benchmark runs on, and what of it a process takes.

The API has a core of its own and what loads it the other; engines share both. On one core all share that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
FOR_API, FOR_LOAD = {CORES[0]}, {CORES[-1]}
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def children_on(cores: set[int]) -> Iterator[None]:
    """What this thread starts meanwhile runs there for good; this thread itself is back where it was after that."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_bytes(pid: int) -> int:
    """Memory of a process now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


class Share:
    """Of one core, what a process took since this was made."""

    def __init__(self, pid: int) -> None:
        self._pid, self._began, self._cpu_s = pid, time.monotonic(), cpu_s(pid)

    def now(self) -> float:
        """Return it: 1.0 is all of a core."""
        return (cpu_s(self._pid) - self._cpu_s) / max(time.monotonic() - self._began, 1e-9)
