"""Crash points: places in the code at which a test may have its process die, as by SIGKILL.

Each lies between two steps that cannot be one: a commit and what tells of it, a file and its row. A process has one
armed at most, from its settings and for tests alone; with none, ``reach`` costs a comparison. What must be true after a
death is not said here: tests/chaos looks at that, at every point of ``Point``.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from stoker import log

logger = log.get(__name__)


class Point(StrEnum):
    """``<part>.<what has just happened>``: the part is the process that reaches it."""

    API_SUBMITTED = "api.submitted"
    """Stored, not rung for, not answered."""
    API_RUNG = "api.rung"
    API_CANCELLED = "api.cancelled"
    """Cancelled, or asked for; neither the node nor the followers know."""
    CONTROL_REAPED = "control.reaped"
    CONTROL_EXPIRED = "control.expired"
    CONTROL_ORPHAN_CANCELLED = "control.orphan_cancelled"
    CONTROL_PROMOTED = "control.promoted"
    """Queued, not rung for."""
    CONTROL_REQUEST_CARRIED_OUT = "control.request_carried_out"
    """What an admin asked for is done, and not yet noted as done."""
    CONTROL_DELIVERY_TAKEN = "control.delivery_taken"
    CONTROL_DELIVERY_SENT = "control.delivery_sent"
    """The receiver has it; that it was sent is not recorded."""
    NODE_FORMER_BOOT_RELEASED = "node.former_boot_released"
    NODE_REGISTERED = "node.registered"
    NODE_CLAIMED = "node.claimed"
    """A lease that nobody works under."""
    NODE_BEGUN = "node.begun"
    NODE_RAN = "node.ran"
    """The work is done, nothing of it is stored."""
    NODE_LOGGED = "node.logged"
    NODE_STORING = "node.storing"
    NODE_STORED = "node.stored"
    """An object that no row knows."""
    NODE_ANNOUNCED = "node.announced"
    NODE_CHILD_STARTED = "node.child_started"
    """Stored, not rung for; the one that called waits for nothing yet."""
    NODE_CHILD_ENDED = "node.child_ended"
    NODE_FINISHING = "node.finishing"
    NODE_FINISHED = "node.finished"
    """Committed, with the next claim perhaps; nobody was told."""
    NODE_RELEASED = "node.released"
    NODE_RENEWED = "node.renewed"

    @property
    def part(self) -> str:
        return self.value.partition(".")[0]


@dataclass(frozen=True, slots=True)
class CrashAt:
    """Die at the ``times``-th time that ``point`` is reached."""

    point: Point
    times: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """``node.claimed``, or ``node.claimed:3``.

        Raises:
            ValueError: there is no such point, or the number is none.
        """
        name, _, times = text.partition(":")
        parsed = cls(Point(name), int(times or 1))
        if parsed.times < 1:
            raise ValueError(f"{times!r} is not a number from 1")
        return parsed

    def __str__(self) -> str:
        return f"{self.point}:{self.times}"


def arm(crash_at: CrashAt | None) -> None:
    """Have this process die there. Called once, by an entry point."""
    global _armed, _times_left
    if crash_at is not None:
        _armed, _times_left = crash_at.point, crash_at.times


def reach(point: Point) -> None:
    """Say that the process is at ``point``."""
    if _armed is point:
        _count_down(point)


_armed: Point | None = None
_times_left = 0


def _count_down(point: Point) -> None:
    global _times_left
    _times_left -= 1
    if _times_left <= 0:
        logger.warning("crash_point_reached", point=point.value)
        os.kill(os.getpid(), signal.SIGKILL)
