"""The table of a run, in plain text."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers.figures import Figures, Key
from benchmarks.peers.thresholds import WAYS

PEERS = ("raw", "bare", "ours", "fal")
COLUMN = 20
# Measure and unit, in the order of the table.
ROWS = [
    ("empty call", "ms"),
    *((f"event, {way}", "ms") for way in WAYS.values()),
    *((f"burst, {way}", "events/s") for way in WAYS.values()),
    *((f"burst, {way}, wrong", "events") for way in WAYS.values()),
    ("events left behind, lost", "events"),
    ("events left behind, in the next call", "events"),
    ("32 MiB result", "ms"),
    ("32 MiB payload", "ms"),
    ("death noticed, in a call", "ms"),
    ("death noticed, idle", "ms"),
    ("start", "s"),
    ("rebuild", "s"),
]
LEGEND = """\
Each cell: the median of the repeats' medians, then the worst p99 of a repeat (events/s: the lowest rate).
raw: a zmq.asyncio round trip over ipc to a process that echoes. bare: interpreters that import torch and enter one
process group side by side, from before the first is started until the slowest is in. fal: fal.distributed.
event: from the worker to the caller, one each 30 ms. burst: as fast as rank 0 can; ours returns from the call at once,
fal's worker waits for its queue to run empty, or it would lose them; "left behind" is without that wait.
wrong: lost, out of order or in another call."""


def table(figures: Figures, world_size: int) -> Iterator[str]:
    """Yield the lines of one world size."""
    yield f"{f'world size {world_size}':46}" + "".join(f"{peer:>{COLUMN}}" for peer in PEERS)
    for measure, unit in ROWS:
        keys = [Key(world_size, measure, peer) for peer in PEERS]
        if any(map(figures.has, keys)):
            yield f"  {f'{measure}, {unit}':44}" + "".join(f"{cell(figures, key, unit):>{COLUMN}}" for key in keys)


def cell(figures: Figures, key: Key, unit: str) -> str:
    """Write one cell."""
    if not figures.has(key):
        return "-"
    if unit == "events/s":
        return f"{figures.typical(key):,.0f} {figures.least(key):,.0f}"
    if unit == "events":
        return f"{figures.most(key):,.0f}"
    return f"{figures.typical(key):,.3f} {figures.p99(key):,.3f}"
