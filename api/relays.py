"""Relays: one for each job that streams of this process follow, and the reader of their rows.

What has something to read while a statement is under way is read by the next one, all jobs together: however many
clients a job has, and however many jobs have news, Postgres is asked once. ``api.stream`` follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from api.hub import Hub
from api.relay import JobFeed, Relay
from api.told import has_result
from stoker import job_queries, log
from stoker.bus import Bus
from stoker.database import is_passing
from stoker.events import Event
from stoker.job_views import JobView

MOST, ROWS = 64, 50
"""So many jobs, and rows of each, are read by one statement."""

logger = log.get(__name__)


class Relays:
    """One for each process."""

    def __init__(self, hub: Hub, bus: Bus, db: AsyncEngine, *, look_s: float, stopping: asyncio.Event) -> None:
        self._hub, self._bus, self._db, self._look_s, self._stopping = hub, bus, db, look_s, stopping
        self._of: dict[UUID, Relay] = {}
        self._due: dict[UUID, Relay] = {}
        self._reading: asyncio.Task[None] | None = None
        self._rests = False
        """Postgres is away: nothing is read for a while, however much is due."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Streams end when the server stops; what is under way ends with the context."""
        waking = asyncio.create_task(self._wake_when_stopping())
        try:
            yield self
        finally:
            tasks = [task for task in (waking, self._reading) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def follow(self, job: JobView, seen: int) -> AsyncIterator[JobFeed]:
        """A feed that is subscribed by the time it is handed out: read rows after that and none is missed.

        ``job`` is as it was read a moment ago; ``seen`` is the seq of the row that the caller has seen last.
        """
        relay = self._of.get(job.id)
        if relay is None:
            relay = self._of[job.id] = Relay(job, self._on_due)
        feed = JobFeed(seen)
        relay.feeds.add(feed)
        try:
            await self._hub.attach(job.id, relay)
            yield feed
        finally:
            relay.feeds.discard(feed)
            if not relay.feeds:
                del self._of[job.id]
                self._due.pop(job.id, None)
                await self._hub.detach(job.id, relay)

    def _on_due(self, relay: Relay) -> None:
        self._due[relay.job_id] = relay
        self._begin()

    def _begin(self) -> None:
        if self._due and self._reading is None and not self._rests:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while self._due and not self._rests:
                batch = [self._due.pop(job_id) for job_id in list(self._due)[:MOST]]
                for relay in batch:
                    if relay.has_gap:
                        relay.fill_gap(await self._bus.progress_after(relay.job_id, relay.last))
                await self._read_rows(batch)
        finally:
            self._reading = None

    async def _read_rows(self, batch: list[Relay]) -> None:
        try:
            found = await job_queries.events_of(self._db, {relay.job_id: relay.seen for relay in batch}, ROWS)
            for relay in batch:
                await self._see_outputs(relay, found[relay.job_id])
        except Exception as error:
            # Whatever it was: without these rows streams would be only as good as the look, until the process ends.
            if is_passing(error):
                logger.warning("streams_wait_for_postgres", reason=str(error)[:200], jobs=len(batch))
            else:
                logger.exception("rows_not_read", jobs=len(batch), next="reads again")
            for relay in batch:
                relay.tell_rows([])
                self._due[relay.job_id] = relay
            self._rests = True
            asyncio.get_running_loop().call_later(self._look_s, self._rested)
            return
        for relay in batch:
            relay.tell_rows(found[relay.job_id])
            if len(found[relay.job_id]) == ROWS:
                self._due[relay.job_id] = relay

    async def _see_outputs(self, relay: Relay, rows: Iterable[Event]) -> None:
        if any(has_result(row) for row in rows):
            relay.job = await job_queries.get(self._db, relay.job_id, relay.job.tenant_id)

    def _rested(self) -> None:
        self._rests = False
        self._begin()

    async def _wake_when_stopping(self) -> None:
        await self._stopping.wait()
        for relay in self._of.values():
            for feed in relay.feeds:
                feed.wake()
