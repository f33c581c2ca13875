"""Submits: jobs that are submitted at the same time share a transaction.

Each submit by itself costs a commit and two looks at its lane. While one transaction of a lane is under way, what comes
for the same lane waits for it and is stored by the next, all together: a burst costs little more than its rows, and
whoever comes alone waits for nobody. The API holds one for its process. What a submit does is ``stoker.jobs``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import jobs
from stoker.database import is_passing
from stoker.jobs import NewJob, Submitted

MOST = 32
"""How many jobs a transaction stores: the lane is held meanwhile."""

Lane = tuple[UUID, bool, UUID]
Waiting = tuple[NewJob, dict[str, Any], asyncio.Future[Submitted]]


class Submits:
    """Belongs on one event loop."""

    def __init__(self, db: AsyncEngine) -> None:
        self._db = db
        self._waiting: dict[Lane, list[Waiting]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def submit(self, new: NewJob) -> Submitted:
        """As ``jobs.submit``. A caller that is cancelled may have had its job stored, as ever.

        Raises:
            IdempotencyConflict, InvalidRequest, QueueFull: as there.
        """
        if new.idempotency_key is not None or new.needs_room:
            return await jobs.submit(self._db, new)  # waits for others' transactions, or counts: not together
        row = new.row()
        lane = (row["version_id"], row["uses_gpus"], row["tenant_id"])
        stored: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
        if lane in self._waiting:
            self._waiting[lane].append((new, row, stored))
        else:
            self._waiting[lane] = []
            sending = asyncio.create_task(self._send(lane, [(new, row, stored)]))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        return await stored

    async def _send(self, lane: Lane, first: list[Waiting]) -> None:
        """Store what waits for this lane until nothing does."""
        batch = first
        try:
            while batch:
                await self._store(batch)
                batch = self._waiting[lane][:MOST]
                del self._waiting[lane][:MOST]
        finally:
            for _, _, stored in self._waiting.pop(lane):
                stored.cancel()  # only where this task was cancelled: the process ends

    async def _store(self, batch: Sequence[Waiting]) -> None:
        try:
            answers = await jobs.submit_alike(self._db, [(new, row) for new, row, _ in batch])
        except Exception as error:  # noqa: BLE001 - whoever submitted is told, and nobody else
            if len(batch) > 1 and not is_passing(error):
                for one in batch:  # refused as a whole, perhaps for one job's sake
                    await self._store([one])
                return
            for _, _, stored in batch:
                if not stored.done():
                    stored.set_exception(error)
            return
        for (_, _, stored), answer in zip(batch, answers, strict=True):
            if not stored.done():
                stored.set_result(answer)
