"""What a runner tells whoever listens: events and logs of its ranks, and its own status."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RankEvent:
    """An intermediate result as the worker passed it, with images, tensors and arrays as objects."""

    rank: int
    data: Any
    image_format: str
    as_text: bool
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class RankLog:
    """A log record or a line of output of a rank. ``level`` is logging's."""

    rank: int
    level: int
    message: str


class RunnerState(enum.StrEnum):
    """What a runner is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    WARM = "warm"
    BUSY = "busy"
    REBUILDING = "rebuilding"
    BROKEN = "broken"


class RankState(enum.StrEnum):
    """What one rank is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class RankStatus:
    """One rank's process."""

    rank: int
    pid: int
    state: RankState


@dataclass(frozen=True, slots=True)
class RunnerStatus:
    """A runner at one moment.

    ``restarts`` counts rebuilt pools, ``dropped`` messages that belonged to no call, ``logs_dropped`` lines that its
    present ranks could not get rid of.
    """

    state: RunnerState
    ranks: tuple[RankStatus, ...]
    waiting: int
    restarts: int
    dropped: int
    logs_dropped: int
