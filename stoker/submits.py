"""Submits: jobs that are submitted at the same time share a transaction, those of each lane by themselves.

Each submit by itself costs a commit and two looks at its lane. The API holds one for its process. What a submit does is
``stoker.jobs``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import jobs
from stoker.gathered import Gathered
from stoker.jobs import NewJob, Submitted

MOST = 32
"""How many jobs a transaction stores: the lane is held meanwhile."""
LIMIT_S = 15.0
"""Longer than any statement may take: it is for a connection that is silent."""
MOST_LANES = 10_000
"""So many lanes are remembered to be there: their jobs come without a look at them."""

Item = tuple[NewJob, dict[str, Any]]
Lane = tuple[UUID, bool, UUID]


class Submits:
    """Belongs on one event loop."""

    def __init__(self, db: AsyncEngine) -> None:
        self._db = db
        self._gathered = Gathered[Item, Submitted](self._store, most=MOST, limit_s=LIMIT_S)
        self._lanes: set[Lane] = set()

    async def submit(self, new: NewJob) -> Submitted:
        """As ``jobs.submit``. A caller that is cancelled may have had its job stored, as ever.

        Raises:
            IdempotencyConflict, InvalidRequest, QueueFull: as there.
        """
        if new.idempotency_key is not None or new.needs_room:
            return await jobs.submit(self._db, new)  # waits for others' transactions, or counts: not together
        row = new.row()
        return await self._gathered.ask(_lane(row), (new, row))

    async def _store(self, alike: Sequence[Item]) -> list[Submitted]:
        lane = _lane(alike[0][1])
        if lane in self._lanes:
            try:
                return await jobs.submit_alike(self._db, alike, has_lane=True)
            except ForeignKeyViolation:
                self._lanes.discard(lane)
        stored = await jobs.submit_alike(self._db, alike)
        if len(self._lanes) < MOST_LANES:
            self._lanes.add(lane)
        return stored


def _lane(row: Mapping[str, Any]) -> Lane:
    return row["version_id"], row["uses_gpus"], row["tenant_id"]
