"""Quarantine: when crash after crash says that an app, or the GPUs, do not work here, and for how long they rest.

Pure: the caller brings the time. One job is never the reason, however often it crashes; jobs served well in between
count against it. The executor asks before it claims, and says how its jobs ended.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

JOBS = 3
"""So many different jobs, each crashed alone, are no chance."""
WINDOW_S = 600.0
FIRST_S, LONGEST_S = 30.0, 900.0


class Quarantine:
    """``apps``: how many different apps have to be among the crashed. ``on_begin`` hears each quarantine's length."""

    def __init__(self, apps: int = 1, *, on_begin: Callable[[float], None]) -> None:
        self._apps, self._on_begin = apps, on_begin
        self._crashes: list[tuple[float, str, UUID]] = []
        self._until: float | None = None
        self._in_a_row = 0

    def crashed(self, app: str, job_id: UUID, now: float) -> None:
        """A job has crashed, and nothing else can be blamed for it."""
        if self.left_s(now) is not None:
            return  # claimed before it began
        self._crashes = [crash for crash in self._crashes if crash[0] > now - WINDOW_S] + [(now, app, job_id)]
        jobs, apps = ({crash[at] for crash in self._crashes} for at in (2, 1))
        if self.is_on_trial or (len(jobs) >= JOBS and len(apps) >= self._apps):
            length_s = min(FIRST_S * 2**self._in_a_row, LONGEST_S)
            self._until, self._in_a_row, self._crashes = now + length_s, self._in_a_row + 1, []
            self._on_begin(length_s)

    def served(self) -> None:
        """A job went well: one of the crashes is made up for, and a trial is passed."""
        self._crashes = self._crashes[1:]
        self._until, self._in_a_row = None, 0

    def left_s(self, now: float) -> float | None:
        """How much longer nothing may be claimed; None: it may."""
        return self._until - now if self._until is not None and now < self._until else None

    @property
    def is_on_trial(self) -> bool:
        """Whether it has been quarantined, and no job has gone well since: jobs are to be tried one at a time."""
        return self._until is not None
