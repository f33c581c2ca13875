"""The hub: one Redis subscription for all event streams of this process, and a look at Postgres every 2 s behind it.

It says to each follower that there may be rows to read, and hands it live progress. It stores nothing and reads no
rows; others do (``api.relays`` for streams of one job, ``api.following``, ``api.tenant_stream``). A feed is bounded: a
slow client loses old progress, never a row. However many streams are open, a look is one statement.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple, Protocol, Self
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import log
from stoker.bus import JOB_CHANNEL, TENANT_CHANNEL, Bus, from_json
from stoker.database import is_passing, reading
from stoker.errors import StokerError
from stoker.events import Event
from stoker.subscription import Message, Subscription

KEEP_PROGRESS = 64
CONFIRM_S = 1.0
"""How long a new stream waits for Redis to confirm: without it the look at Postgres serves."""

NEWEST = text("""
SELECT job_id AS id, last_seq::bigint AS at FROM job_heads WHERE job_id = ANY(:job_ids)
UNION ALL
SELECT t.id, e.mark FROM unnest(CAST(:tenant_ids AS uuid[])) AS t (id)
CROSS JOIN LATERAL (SELECT mark FROM job_events WHERE tenant_id = t.id ORDER BY mark DESC LIMIT 1) e
""")
"""How far the rows of each job (its last seq) and each tenant (the newest mark) have come."""

logger = log.get(__name__)


class Taken(NamedTuple):
    """``has_rows``: read rows. ``has_gap``: and the progress that Redis kept. ``progress``: what was live."""

    has_rows: bool
    has_gap: bool
    progress: list[Event]


class Follower(Protocol):
    """Who is told. ``seen``: up to which seq of its job, or mark of its tenant, it has come."""

    seen: int

    def look(self, seq: int | None = None) -> None:
        """There may be rows past ``seen``, the last of them ``seq`` where that is known."""

    def look_back(self) -> None:
        """Nobody listened for a while: there may be rows, and progress that was kept."""

    def end(self) -> None:
        """Its job is gone."""

    def offer(self, event: Event) -> None:
        """Live progress."""


class Feed:
    """What one stream has not handled yet. ``seen``: up to which seq of its job, or mark of its tenant, it has read."""

    def __init__(self) -> None:
        self.seen = 0
        self.is_over = False
        """The job is gone: what there is to take is the last of it."""
        self._has_rows = self._has_gap = False
        self._progress: deque[Event] = deque(maxlen=KEEP_PROGRESS)
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set while there is something to take."""
        return self._changed

    def look(self, seq: int | None = None) -> None:  # noqa: ARG002 (what is read tells)
        """There may be rows past ``seen``."""
        self._has_rows = True
        self._changed.set()

    def look_back(self) -> None:
        """Nobody listened for a while: there may be rows, and progress that was kept."""
        self._has_gap = True
        self.look()

    def end(self) -> None:
        """Nothing more will come."""
        self.is_over = True
        self._changed.set()

    def offer(self, event: Event) -> None:
        """Live progress."""
        self._progress.append(event)
        self._changed.set()

    def take(self) -> Taken:
        """What came since the last call."""
        has_rows, has_gap, self._has_rows, self._has_gap = self._has_rows, self._has_gap, False, False
        progress = list(self._progress)
        self._progress.clear()
        self._changed.clear()
        return Taken(has_rows, has_gap, progress)


class Hub:
    """Feeds by the job or the tenant that they follow; ids of both are never the same."""

    def __init__(self, bus: Bus, db: AsyncEngine, *, look_s: float) -> None:
        self._bus, self._db, self._look_s = bus, db, look_s
        self._subscriptions = bus.subscribe_all()
        self._feeds: dict[UUID, set[Follower]] = {}
        self._tenants: set[UUID] = set()
        self._can_look = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen and look while the context lasts."""
        async with AsyncExitStack() as stack:
            for subscription in self._subscriptions:
                await stack.enter_async_context(subscription)
            tasks = [asyncio.create_task(self._listen(each)) for each in self._subscriptions]
            tasks.append(asyncio.create_task(self._look_for_ever()))
            for task in tasks:
                task.add_done_callback(_report)
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def follow(self, job_id: UUID) -> AsyncIterator[Feed]:
        """A feed that is subscribed by the time it is handed out: read rows after that and none is missed."""
        feed = Feed()
        try:
            await self.attach(job_id, feed)
            yield feed
        finally:
            await self.detach(job_id, feed)

    @asynccontextmanager
    async def follow_tenant(self, tenant_id: UUID) -> AsyncIterator[Feed]:
        """The same for the rows of all of a tenant's jobs."""
        self._tenants.add(tenant_id)
        feed = Feed()
        try:
            await self.attach(tenant_id, feed)
            yield feed
        finally:
            await self.detach(tenant_id, feed)
            if tenant_id not in self._feeds:
                self._tenants.discard(tenant_id)

    async def attach(self, of: UUID, follower: Follower) -> None:
        """Tell ``follower`` of this job or tenant. Redis has been asked to when this returns, and has confirmed it if
        it can.
        """
        self._feeds.setdefault(of, set()).add(follower)
        channel, subscriptions = self._heard(of)
        listening = [await subscription.add(channel) for subscription in subscriptions]
        with suppress(TimeoutError):
            async with asyncio.timeout(CONFIRM_S):
                for confirmed in listening:
                    await confirmed.wait()

    async def detach(self, of: UUID, follower: Follower) -> None:
        """Tell it nothing more."""
        feeds = self._feeds.get(of, set())
        feeds.discard(follower)
        if not feeds and self._feeds.pop(of, None) is not None:
            channel, subscriptions = self._heard(of)
            for subscription in subscriptions:
                await subscription.remove(channel)

    def _heard(self, of: UUID) -> tuple[str, Sequence[Subscription]]:
        if of in self._tenants:
            return TENANT_CHANNEL.format(tenant_id=of), self._subscriptions[:1]
        return JOB_CHANNEL.format(job_id=of), self._subscriptions

    async def _listen(self, subscription: Subscription) -> None:
        async for message in subscription:
            if message.data is None:
                for feed in self._all_feeds():
                    feed.look_back()
            else:
                self._deliver(message)

    def _deliver(self, message: Message) -> None:
        data = message.data or {}
        try:
            of = UUID((message.channel or "").rpartition(":")[2])
            event = from_json(data["event"]) if "event" in data else None
            seq = None if event or "seq" not in data else int(data["seq"])
        except (StokerError, LookupError, TypeError, ValueError) as error:
            logger.warning("message_dropped", channel=message.channel, reason=str(error)[:200])
            return
        for feed in self._feeds.get(of, ()):
            if event is None:
                feed.look(seq)
            else:
                feed.offer(event)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            if not self._feeds:
                continue
            tenants = [of for of in self._feeds if of in self._tenants]
            job_ids = [of for of in self._feeds if of not in self._tenants]
            try:
                newest = await self._newest(job_ids, tenants)
            except Exception as error:
                # Whatever it was: without this look streams are only as good as Redis, until the process ends.
                if self._can_look and not is_passing(error):
                    logger.exception("look_failed", next="looks again")
                self._note(can_look=False)
                continue
            self._note(can_look=True)
            for of, at in newest.items():
                for feed in self._feeds.get(of, ()):
                    if at > feed.seen:
                        feed.look(at)
            for of in job_ids:
                if of not in newest:  # deleted: nobody follows a job that is not there yet
                    for feed in self._feeds.get(of, ()):
                        feed.end()

    async def _newest(self, job_ids: Sequence[UUID], tenants: Sequence[UUID]) -> Mapping[UUID, int]:
        async with reading(self._db) as connection:
            rows = await connection.execute(NEWEST, {"job_ids": job_ids, "tenant_ids": tenants})
            return {row.id: row.at for row in rows}

    def _all_feeds(self) -> list[Follower]:
        return [feed for feeds in self._feeds.values() for feed in feeds]

    def _note(self, *, can_look: bool) -> None:
        if can_look != self._can_look:
            logger.warning("postgres_back" if can_look else "postgres_lost", streams=len(self._all_feeds()))
        self._can_look = can_look


def _report(task: asyncio.Task[None]) -> None:
    """A task of the hub ends with the hub; if it fails before, streams still work, but slower or not at all."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("hub_failed", exc_info=error, next="restart this process")
