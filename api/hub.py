"""The hub: one Redis subscription for all event streams of this process, and a look at Postgres every 2 s behind it.

It says to each feed that there may be rows to read, and hands it live progress. It stores nothing and reads no rows;
the stream does (``api.stream``). A feed is bounded: a slow client loses old progress, never a row.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Self
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import log
from stoker.bus import JOB_CHANNEL, Bus, from_json
from stoker.database import is_passing
from stoker.errors import StokerError
from stoker.events import Event
from stoker.subscription import Message

KEEP_PROGRESS = 64
CONFIRM_S = 1.0
"""How long a new stream waits for Redis to confirm: without it the look at Postgres serves."""

LAST_SEQS = text("SELECT job_id, last_seq FROM job_heads WHERE job_id = ANY(:job_ids)")

logger = log.get(__name__)


class Taken(NamedTuple):
    """``has_rows``: read rows. ``has_gap``: and the progress that Redis kept. ``progress``: what was live."""

    has_rows: bool
    has_gap: bool
    progress: list[Event]


class Feed:
    """What one stream has not handled yet."""

    def __init__(self) -> None:
        self.seen = 0
        self._has_rows = self._has_gap = False
        self._progress: deque[Event] = deque(maxlen=KEEP_PROGRESS)
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set while there is something to take."""
        return self._changed

    def look(self) -> None:
        """There may be rows past ``seen``."""
        self._has_rows = True
        self._changed.set()

    def look_back(self) -> None:
        """Nobody listened for a while: there may be rows, and progress that was kept."""
        self._has_gap = True
        self.look()

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
    """Feeds by job."""

    def __init__(self, bus: Bus, db: AsyncEngine, *, look_s: float) -> None:
        self._bus, self._db, self._look_s = bus, db, look_s
        self._subscription = bus.subscribe()
        self._feeds: dict[UUID, set[Feed]] = {}
        self._can_look = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen and look while the context lasts."""
        async with self._subscription:
            tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look_for_ever())]
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
        channel = JOB_CHANNEL.format(job_id=job_id)
        self._feeds.setdefault(job_id, set()).add(feed)
        try:
            listening = await self._subscription.add(channel)
            with suppress(TimeoutError):
                async with asyncio.timeout(CONFIRM_S):
                    await listening.wait()
            yield feed
        finally:
            feeds = self._feeds[job_id]
            feeds.discard(feed)
            if not feeds:
                del self._feeds[job_id]
                await self._subscription.remove(channel)

    async def _listen(self) -> None:
        async for message in self._subscription:
            if message.data is None:
                for feed in self._all_feeds():
                    feed.look_back()
            else:
                self._deliver(message)

    def _deliver(self, message: Message) -> None:
        data = message.data or {}
        try:
            job_id = UUID((message.channel or "").rpartition(":")[2])
            event = from_json(data["event"]) if "event" in data else None
        except (StokerError, LookupError, TypeError, ValueError) as error:
            logger.warning("message_dropped", channel=message.channel, reason=str(error)[:200])
            return
        for feed in self._feeds.get(job_id, ()):
            if event is None:
                feed.look()
            else:
                feed.offer(event)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            if not self._feeds:
                continue
            try:
                seqs = await self._last_seqs(list(self._feeds))
            except Exception as error:
                # Whatever it was: without this look streams are only as good as Redis, until the process ends.
                if self._can_look and not is_passing(error):
                    logger.exception("look_failed", next="looks again")
                self._note(can_look=False)
                continue
            self._note(can_look=True)
            for job_id, seq in seqs.items():
                for feed in self._feeds.get(job_id, ()):
                    if seq > feed.seen:
                        feed.look()

    async def _last_seqs(self, job_ids: Collection[UUID]) -> Mapping[UUID, int]:
        async with self._db.connect() as connection:
            rows = await connection.execute(LAST_SEQS, {"job_ids": list(job_ids)})
            return {row.job_id: row.last_seq for row in rows}

    def _all_feeds(self) -> list[Feed]:
        return [feed for feeds in self._feeds.values() for feed in feeds]

    def _note(self, *, can_look: bool) -> None:
        if can_look != self._can_look:
            logger.warning("postgres_back" if can_look else "postgres_lost", streams=len(self._all_feeds()))
        self._can_look = can_look


def _report(task: asyncio.Task[None]) -> None:
    """A task of the hub ends with the hub; if it fails before, streams still work, but slower or not at all."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("hub_failed", exc_info=error, next="restart this process")
