"""Submits: jobs that are submitted at the same time share a transaction, those of each lane by themselves.

Each submit by itself costs a commit and two looks at its lane. The API holds one for its process. What a submit does is
``stoker.jobs``'s.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import jobs
from stoker.gathered import Gathered
from stoker.jobs import NewJob, Submitted

MOST = 32
"""How many jobs a transaction stores: the lane is held meanwhile."""
LIMIT_S = 15.0
"""Longer than any statement may take: it is for a connection that is silent."""


class Submits:
    """Belongs on one event loop."""

    def __init__(self, db: AsyncEngine) -> None:
        self._db = db
        act = partial(jobs.submit_alike, db)
        self._gathered = Gathered[tuple[NewJob, dict[str, Any]], Submitted](act, most=MOST, limit_s=LIMIT_S)

    async def submit(self, new: NewJob) -> Submitted:
        """As ``jobs.submit``. A caller that is cancelled may have had its job stored, as ever.

        Raises:
            IdempotencyConflict, InvalidRequest, QueueFull: as there.
        """
        if new.idempotency_key is not None or new.needs_room:
            return await jobs.submit(self._db, new)  # waits for others' transactions, or counts: not together
        row = new.row()
        return await self._gathered.ask((row["version_id"], row["uses_gpus"], row["tenant_id"]), (new, row))
