"""The table of a run, in plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.peers.figures import Figures, Key

COLUMN = 19
NAMES = ("stoker", "stoker, warm rank", "celery", "celery sqlalchemy", "taskiq", "dramatiq", "procrastinate")
LEGEND = """\
Each cell: the median of the repeats' medians, then the worst p99 of a repeat (jobs/s: the median, then the lowest).
stoker: POST /v1/jobs to an endpoint that holds the one seat and asks its rank nothing; at eight slots an app without
ranks that serves eight calls at a time. "warm rank": to an endpoint that calls a warm rank of world size 1. Submits
come from one process for each system: Stoker's, taskiq's and procrastinate's eight at a time where a rate is
measured, Celery's and dramatiq's one by one. Latencies at 20 jobs a second. Only Stoker's and procrastinate's jobs
and Celery's SQLAlchemy results are in Postgres; procrastinate keeps no results."""


def table(figures: Figures, slots: int) -> Iterator[str]:
    """Yield the lines for so many slots."""
    described = [Key(**{name: each[name] for name in Key._fields}) for each in figures.described()]  # type: ignore[arg-type]
    measures = list(dict.fromkeys(key.measure for key in described if key.world_size == slots))
    names = [name for name in NAMES if any(key.peer == name and key.world_size == slots for key in described)]
    yield f"{f'slots: {slots}':40}" + "".join(f"{name:>{COLUMN}}" for name in names)
    for measure in measures:
        cells = (cell(figures, Key(slots, measure, name)) for name in names)
        yield f"  {measure:38}" + "".join(f"{text:>{COLUMN}}" for text in cells)


def cell(figures: Figures, key: Key) -> str:
    """Write one cell."""
    if not figures.has(key):
        return "-"
    if key.measure.endswith("/s"):
        return f"{figures.typical(key):,.0f} {figures.least(key):,.0f}"
    return f"{figures.typical(key):,.1f} {figures.p99(key):,.1f}"


def idle_lines(idle: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield the lines of an idle stack."""
    for title, values in idle.items():
        yield f"idle, {title}: " + ", ".join(f"{name} {value:,.2f}" for name, value in values.items())
