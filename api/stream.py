"""One job's events as Server-Sent Events: replay, then follow until the final event.

Who comes new gets the rows and the newest progress; who comes back gets what was missed, rows and the progress that
Redis kept between them, in the order of their ids.

Subscribe first, then read, then drain: what is committed after the subscription wakes the feed, what came before is
read. Ids only rise: an event that is not past the last one sent is dropped, so nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator

import orjson

from api.connections import Connections
from api.hub import Feed
from api.job_json import event_data
from stoker import job_queries, log
from stoker.bus import KEEP_PROGRESS
from stoker.database import is_passing
from stoker.events import Event, EventId, EventKind
from stoker.job_queries import JobView
from stoker.states import JobState

PAGE = 500
RETRY_MS = 1000
RETRY_ON_SHUTDOWN_MS = 500
"""Another replica, or this one restarted, answers soon."""

PING = b": ping\n\n"

logger = log.get(__name__)


def encode(event: Event, data: object) -> bytes:
    """One event on the wire."""
    return b"event: %s\nid: %s\ndata: %s\n\n" % (event.kind.value.encode(), str(event.id).encode(), orjson.dumps(data))


def is_last(event: Event) -> bool:
    """Whether no event can follow."""
    return event.kind is EventKind.STATE and JobState(event.data["state"]).is_final


class JobStream:
    """The stream of one client."""

    def __init__(self, here: Connections, job: JobView, after: EventId, base_url: str) -> None:
        self._here, self._job, self._base_url = here, job, base_url
        self._sent = after
        self._attempt = job.attempt
        self._ended = False
        self._waiting: list[Event] = []

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the response."""
        self._here.metrics.streams.inc()
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            async with self._here.hub.follow(self._job.id) as feed:
                async for chunk in self._replay(feed):
                    yield chunk
                spoke = time.monotonic()
                while not self._ended:
                    await self._wait(feed, spoke + self._here.settings.ping_s)
                    if self._here.stopping.is_set():
                        yield b"retry: %d\n\n" % RETRY_ON_SHUTDOWN_MS
                        return
                    async for chunk in self._drain(feed):
                        yield chunk
                        spoke = time.monotonic()
                    if time.monotonic() - spoke >= self._here.settings.ping_s:
                        yield PING
                        spoke = time.monotonic()
        finally:
            self._here.metrics.streams.dec()

    async def _replay(self, feed: Feed) -> AsyncIterator[bytes]:
        if self._sent == EventId(0):
            async for chunk in self._rows(feed):
                yield chunk
            newest = await self._here.bus.newest_progress(self._job.id, self._attempt)
            async for chunk in self._go_on(feed, newest, has_rows=False):
                yield chunk
            return
        missed = await self._here.bus.progress_after(self._job.id, self._sent)
        async for chunk in self._go_on(feed, missed, has_rows=True):
            yield chunk

    async def _drain(self, feed: Feed) -> AsyncIterator[bytes]:
        has_rows, has_gap, progress = feed.take()
        if has_gap:
            progress = [*progress, *await self._here.bus.progress_after(self._job.id, self._sent)]
        async for chunk in self._go_on(feed, progress, has_rows=has_rows):
            yield chunk

    async def _go_on(self, feed: Feed, progress: Iterable[Event], *, has_rows: bool) -> AsyncIterator[bytes]:
        """Rows and progress, each in its place. Progress whose row could not be read yet waits for it."""
        self._waiting = sorted([*self._waiting, *progress], key=lambda event: event.id)[-KEEP_PROGRESS:]
        if not self._ended and (has_rows or any(event.id.seq > self._sent.seq for event in self._waiting)):
            async for chunk in self._rows(feed):
                yield chunk
        for chunk in self._progress_before(EventId(self._sent.seq + 1)):
            yield chunk

    def _progress_before(self, bound: EventId) -> Iterator[bytes]:
        while self._waiting and self._waiting[0].id < bound:
            event = self._waiting.pop(0)
            if event.id > self._sent and not self._ended:
                self._sent = event.id
                self._here.metrics.sent.labels(event.kind.value).inc()
                yield encode(event, event.data)

    async def _rows(self, feed: Feed) -> AsyncIterator[bytes]:
        """Every row past the last one sent, with the progress between. While Postgres is away: none, and the feed will
        look again.
        """
        full = True
        while full and not self._ended:
            try:
                rows = await job_queries.events_after(self._here.db, self._job.id, self._sent.seq, PAGE)
                chunks = [encode(row, await self._data_of(row)) for row in rows]
            except Exception as error:
                if not is_passing(error):
                    raise
                names = {"job_id": str(self._job.id), "attempt": self._attempt}
                logger.warning("stream_waits_for_postgres", reason=str(error)[:200], **names)
                asyncio.get_running_loop().call_later(self._here.settings.look_s, feed.look)
                return
            for row, chunk in zip(rows, chunks, strict=True):
                for between in self._progress_before(row.id):
                    yield between
                self._sent, self._attempt, self._ended = row.id, row.id.attempt, is_last(row)
                feed.seen = row.id.seq
                self._here.metrics.sent.labels(row.kind.value).inc()
                yield chunk
            full = len(rows) == PAGE

    async def _data_of(self, row: Event) -> object:
        if row.kind is EventKind.STATE and row.data.get("result") is not None:
            # The links of a result are made absolute at the pointers of the job's outputs, which exist by now.
            self._job = await job_queries.get(self._here.db, self._job.id, self._job.tenant_id)
        return event_data(row, self._job, self._base_url)

    async def _wait(self, feed: Feed, deadline: float) -> None:
        """Wait for the feed, the shutdown or the time for a ping."""
        waits = [asyncio.ensure_future(event.wait()) for event in (feed.changed, self._here.stopping)]
        try:
            timeout = max(deadline - time.monotonic(), 0)
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
