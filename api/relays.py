"""Relays: one for each job that streams of this process follow, and the reader of their rows.

What has something to read while a statement is under way is read by the next one, all jobs together: however many
clients a job has, and however many jobs have news, Postgres is asked once. ``api.stream`` follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from api.hub import Hub
from api.relay import JobFeed, Relay
from api.told import has_result
from stoker import job_queries, log
from stoker.bus import Bus
from stoker.database import is_passing
from stoker.errors import NotFound
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
        self._unread: set[Relay] = set()
        """Those whose rows could not be read, alone. They wait for a while, whatever they hear; the others do not."""

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
    async def follow(self, job: JobView) -> AsyncIterator[JobFeed]:
        """A feed that is subscribed by the time it is handed out: read rows after that and none is missed.

        ``job`` is as it was read a moment ago.
        """
        relay = self._of.get(job.id)
        if relay is None:
            relay = self._of[job.id] = Relay(job, self._on_due)
        feed = JobFeed()
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
        if relay not in self._unread:
            self._due[relay.job_id] = relay
            self._begin()

    def _begin(self) -> None:
        if self._due and self._reading is None and not self._rests:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while self._due and not self._rests:
                await self._tell([self._due.pop(job_id) for job_id in list(self._due)[:MOST]])
        finally:
            self._reading = None

    async def _tell(self, batch: list[Relay]) -> None:
        try:
            await self._tell_rows(batch)
        except Exception as error:
            # Whatever it was: without these rows streams would be only as good as the look, until the process ends.
            if is_passing(error):
                logger.warning("streams_wait_for_postgres", reason=str(error)[:200], jobs=len(batch))
                self._rests = True
                asyncio.get_running_loop().call_later(self._look_s, self._rested)
            elif len(batch) > 1:
                for relay in batch:  # refused as a whole, perhaps for one's sake
                    if not self._rests:
                        await self._tell([relay])
                    else:
                        self._put_back(relay)
                return
            else:
                logger.exception("rows_not_read", job_id=str(batch[0].job_id), next="reads again")
                self._leave(batch[0])
            for relay in batch:
                self._put_back(relay)
                relay.tell_rows([])

    async def _tell_rows(self, batch: list[Relay]) -> None:
        for relay in batch:
            if relay.has_gap:
                relay.fill_gap(await self._kept_progress(relay))
        found = await job_queries.events_of(self._db, {relay.job_id: relay.seen for relay in batch}, ROWS)
        for relay in batch:
            rows = found[relay.job_id]
            await self._see_outputs(relay, rows)
            relay.tell_rows(rows)
            if len(rows) == ROWS:
                self._put_back(relay)

    async def _kept_progress(self, relay: Relay) -> list[Event]:
        """None where it cannot be read: rows do not wait for what may be lost."""
        try:
            return await self._bus.progress_after(relay.job_id, relay.last)
        except Exception:
            logger.exception("progress_not_read", job_id=str(relay.job_id), next="goes on with rows")
            return []

    async def _see_outputs(self, relay: Relay, rows: Iterable[Event]) -> None:
        if any(has_result(row) for row in rows):
            with suppress(NotFound):  # deleted meanwhile, and its outputs with it
                relay.job = await job_queries.get(self._db, relay.job_id, relay.job.tenant_id)

    def _put_back(self, relay: Relay) -> None:
        """There is more to read, if anybody still follows. Who came after the last had left has another relay."""
        if relay.feeds and relay not in self._unread:
            self._due.setdefault(relay.job_id, relay)

    def _leave(self, relay: Relay) -> None:
        """Read its rows a while later."""
        self._unread.add(relay)
        if self._due.get(relay.job_id) is relay:
            del self._due[relay.job_id]
        asyncio.get_running_loop().call_later(self._look_s, self._read_again, relay)

    def _read_again(self, relay: Relay) -> None:
        self._unread.discard(relay)
        self._put_back(relay)
        self._begin()

    def _rested(self) -> None:
        self._rests = False
        self._begin()

    async def _wake_when_stopping(self) -> None:
        await self._stopping.wait()
        for relay in self._of.values():
            for feed in relay.feeds:
                feed.wake()
