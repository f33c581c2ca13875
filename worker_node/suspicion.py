"""Suspicion: after a process died under several calls, which jobs may have killed it.

While there are suspects here, their app serves one call at a time: whatever kills its process then was alone in it, and
is charged with it. ``worker_node.host`` keeps one for its app and asks it what it may take.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

COMES_BACK_S = 60.0
"""How long a suspect is waited for once the process is back: its job is queued, but another node may have it."""
_NOT_YET = float("inf")
"""No job can come while there is no process to take it."""


class Suspicion:
    """All times are the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._until: dict[UUID, float] = {}
        self._here: set[UUID] = set()

    def cast(self, job_ids: Iterable[UUID]) -> None:
        """The process died while it served these, and perhaps by one of them."""
        for job_id in job_ids:
            self._until[job_id] = _NOT_YET
            self._here.discard(job_id)

    def leave(self, job_ids: Iterable[UUID]) -> None:
        """Calls of these have ended with the process, by no doing of theirs: suspects among them stay suspects."""
        self.cast(job_id for job_id in job_ids if job_id in self._until)

    def comes_back(self, now: float) -> None:
        """The process can serve again: from now on suspects are waited for."""
        for job_id in self._until:
            if job_id not in self._here:
                self._until[job_id] = now + COMES_BACK_S

    def begins(self, job_id: UUID) -> None:
        """A call of the job is served."""
        if job_id in self._until:
            self._here.add(job_id)

    def clears(self, job_id: UUID) -> None:
        """A call of the job has ended and the process lives, or the job is final and comes no more."""
        self._here.discard(job_id)
        self._until.pop(job_id, None)

    def is_on(self, now: float) -> bool:
        """Whether calls are to be served one at a time."""
        self._until = {job_id: until for job_id, until in self._until.items() if until > now or job_id in self._here}
        return bool(self._until)
