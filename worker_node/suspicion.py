"""Suspicion: after a process died under several calls, which jobs may have killed it.

While there are suspects here, their app serves one call at a time: whatever kills its process then was alone in it, and
is charged with it. ``worker_node.host`` keeps one for its app and asks it what it may take.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

COMES_BACK_S = 15.0
"""How long a suspect is waited for: its job is queued at once, but another node may have taken it."""


class Suspicion:
    """All times are the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._until: dict[UUID, float] = {}
        self._here: set[UUID] = set()

    def cast(self, job_ids: Iterable[UUID], now: float) -> None:
        """The process died while it served these, and perhaps by one of them."""
        for job_id in job_ids:
            self._until[job_id] = now + COMES_BACK_S
            self._here.discard(job_id)

    def begins(self, job_id: UUID) -> None:
        """A call of the job is served."""
        if job_id in self._until:
            self._here.add(job_id)

    def clears(self, job_id: UUID) -> None:
        """A call of the job has ended, and the process lives."""
        self._here.discard(job_id)
        self._until.pop(job_id, None)

    def is_on(self, now: float) -> bool:
        """Whether calls are to be served one at a time."""
        self._until = {job_id: until for job_id, until in self._until.items() if until > now or job_id in self._here}
        return bool(self._until)
