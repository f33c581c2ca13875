"""One job's events as Server-Sent Events: replay, then follow until the final event, or until the job is gone.

Who comes new gets the rows and the newest progress; who comes back gets what was missed, rows and the progress that
Redis kept between them, in the order of their ids. Who reads too slowly gets every row and the newest progress.

Subscribe first, then read, then follow the job's relay: what is committed after the subscription is told there, what
came before is read. Ids only rise: an event that is not past the last one sent is dropped, so nothing is sent twice;
and rows have no gap: where one is missing, it is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import replace

from api.connections import Connections
from api.relay import JobFeed
from api.told import Told, has_result
from stoker import job_queries, log
from stoker.database import is_passing
from stoker.errors import NotFound
from stoker.events import Event, EventId
from stoker.job_views import JobView

PAGE = 500
RETRY_MS = 1000
RETRY_ON_SHUTDOWN_MS = 500
"""Another replica, or this one restarted, answers soon."""

PING = b": ping\n\n"

logger = log.get(__name__)


class JobStream:
    """The stream of one client."""

    def __init__(self, here: Connections, job: JobView, after: EventId, base_url: str) -> None:
        self._here, self._base_url = here, base_url
        # Of a job only its outputs are told. What may be large is not kept for as long as somebody follows.
        self._job = replace(job, input=None, result=None)
        self._sent = after
        self._attempt = job.attempt
        self._ended = False

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the response."""
        settings, stopping = self._here.settings, self._here.stopping
        self._here.metrics.streams.inc()
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            async with self._here.relays.follow(self._job) as feed:
                is_new = self._sent == EventId(0)
                async for chunk in self._read(feed, newest=is_new):
                    yield chunk
                spoke = time.monotonic()
                while not self._ended:
                    if not stopping.is_set():  # who stops the server wakes those that wait by then, and nobody else
                        await feed.wait(spoke + settings.ping_s - time.monotonic())
                    if stopping.is_set():
                        yield b"retry: %d\n\n" % RETRY_ON_SHUTDOWN_MS
                        return
                    chunk = self._chunk(feed.take(), feed)
                    if chunk:
                        yield chunk
                    if feed.is_behind:
                        async for chunk in self._read(feed, newest=True):
                            yield chunk
                    if feed.is_over:
                        return
                    if chunk:
                        spoke = time.monotonic()
                    elif time.monotonic() - spoke >= settings.ping_s:
                        yield PING
                        spoke = time.monotonic()
        finally:
            self._here.metrics.streams.dec()

    def _chunk(self, told: Iterable[Told], feed: JobFeed) -> bytes:
        """What of it is past the last event sent, as far as no row is missing; else the feed is behind."""
        chunks = []
        for each in told:
            event_id = each.event.id
            if event_id <= self._sent or self._ended:
                continue
            if event_id.seq > self._sent.seq + each.event.kind.is_row:
                feed.fall_behind()
                break
            chunks.append(self._send(each))
        return b"".join(chunks)

    def _send(self, told: Told) -> bytes:
        event = told.event
        self._sent, self._ended = event.id, told.is_last
        if event.kind.is_row:
            self._attempt = event.id.attempt
        self._here.metrics.note_sent(event.kind)
        return told.chunk(self._base_url)

    async def _read(self, feed: JobFeed, *, newest: bool) -> AsyncIterator[bytes]:
        """Every row past the last one sent, with the progress that was kept between; of that the ``newest`` alone
        where nobody asks for what was before. While Postgres is away: no rows, and the feed will be behind again.
        """
        feed.is_behind = False
        progress = [] if newest else await self._here.bus.progress_after(self._job.id, self._sent)
        full = True
        while full and not self._ended:
            try:
                rows = await job_queries.events_after(self._here.db, self._job.id, self._sent.seq, PAGE)
                if any(has_result(row) for row in rows):
                    with suppress(NotFound):  # deleted meanwhile, and its outputs with it
                        self._job = await job_queries.get(self._here.db, self._job.id, self._job.tenant_id)
            except Exception as error:
                if not is_passing(error):
                    raise
                names = {"job_id": str(self._job.id), "attempt": self._attempt}
                logger.warning("stream_waits_for_postgres", reason=str(error)[:200], **names)
                asyncio.get_running_loop().call_later(self._here.settings.look_s, feed.fall_behind)
                break
            full = len(rows) == PAGE
            if chunk := self._merged(rows, progress):
                yield chunk
        if newest and not self._ended:
            progress = await self._here.bus.newest_progress(self._job.id, self._attempt)
            if chunk := self._merged([], progress):
                yield chunk

    def _merged(self, rows: list[Event], progress: list[Event]) -> bytes:
        """Rows and the progress that needs no row after them, in the order of their ids."""
        last = rows[-1].id.seq if rows else self._sent.seq
        ready = sorted([*rows, *(each for each in progress if each.id.seq <= last)], key=lambda each: each.id)
        # Each that is sent moves the place that the next one is compared with.
        return b"".join(
            [self._send(Told(event, self._job)) for event in ready if event.id > self._sent and not self._ended]
        )
