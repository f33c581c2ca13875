"""Ends: which of the jobs that are waited for on this node have ended.

One subscription and one statement look for all of them. What is waited for, and why, is ``worker_node.children``'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import children, log
from stoker.bus import JOB_CHANNEL, Bus
from stoker.database import is_passing
from stoker.subscription import Subscription

LISTEN_S = 1.0
"""How long Redis may take to listen before the first look at a job, which then has to do."""

logger = log.get(__name__)


class Ends:
    """It looks when the bus tells of a row, and every ``look_s`` seconds in any case. ``run`` has to be at work."""

    def __init__(self, db: AsyncEngine, bus: Bus, look_s: float) -> None:
        self._db, self._bus, self._look_s = db, bus, look_s
        self._ended: dict[UUID, asyncio.Event] = {}
        self._waiting: Counter[UUID] = Counter()
        self._told = asyncio.Event()
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        """Look and listen until cancelled."""
        async with self._bus.subscribe() as subscription:
            for job_id in self._ended:
                await subscription.add(JOB_CHANNEL.format(job_id=job_id))
            self._subscription = subscription
            listening = asyncio.create_task(self._listen(subscription))
            try:
                await self._look()
            finally:
                self._subscription = None
                listening.cancel()
                await asyncio.wait([listening])

    async def of(self, job_id: UUID) -> None:
        """Wait until the job has ended."""
        ended = self._ended.setdefault(job_id, asyncio.Event())
        self._waiting[job_id] += 1
        try:
            await self._hear_of(job_id)
            self._told.set()
            await ended.wait()
        finally:
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id], self._ended[job_id]
                if self._subscription is not None:
                    await self._subscription.remove(JOB_CHANNEL.format(job_id=job_id))

    async def _hear_of(self, job_id: UUID) -> None:
        """Listen before the first look, so that an end between the two is heard."""
        if self._subscription is None:
            return
        listening = await self._subscription.add(JOB_CHANNEL.format(job_id=job_id))
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_S):
                await listening.wait()

    async def _listen(self, subscription: Subscription) -> None:
        async for message in subscription:
            if message.data is None or "seq" in message.data:  # else it is progress
                self._told.set()

    async def _look(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._told.wait()
            self._told.clear()
            if not self._ended:
                continue
            try:
                final = await children.final_ones(self._db, list(self._ended))
            except Exception as error:
                if not is_passing(error):
                    raise
                logger.debug("look_failed", error=str(error)[:300])
                continue
            for job_id in final & self._ended.keys():
                self._ended[job_id].set()
