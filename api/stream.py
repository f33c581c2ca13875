"""One job's events as Server-Sent Events: replay the rows, then the newest progress, then follow until the final event.

Subscribe first, then read, then drain: what is committed after the subscription wakes the feed, what came before is
read. Ids only rise: an event that is not past the last one sent is dropped, so nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

import orjson

from api.connections import Connections
from api.hub import Feed
from api.job_json import event_data
from stoker import job_queries, log
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

    async def body(self) -> AsyncIterator[bytes]:
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
        async for chunk in self._rows(feed):
            yield chunk
        if not self._ended:
            async for chunk in self._progress(feed, await self._here.bus.newest_progress(self._job.id, self._attempt)):
                yield chunk

    async def _drain(self, feed: Feed) -> AsyncIterator[bytes]:
        has_rows, progress = feed.take()
        async for chunk in self._progress(feed, progress):
            yield chunk
        if has_rows and not self._ended:
            async for chunk in self._rows(feed):
                yield chunk

    async def _progress(self, feed: Feed, events: Iterable[Event]) -> AsyncIterator[bytes]:
        for event in events:
            if event.id.seq > self._sent.seq and not self._ended:
                async for chunk in self._rows(feed):
                    yield chunk
            if event.id > self._sent and not self._ended:
                self._sent = event.id
                self._here.metrics.sent.labels(event.kind.value).inc()
                yield encode(event, event.data)

    async def _rows(self, feed: Feed) -> AsyncIterator[bytes]:
        """Every row past the last one sent. While Postgres is away: none, and the feed will look again."""
        full = True
        while full and not self._ended:
            try:
                rows = await job_queries.events_after(self._here.db, self._job.id, self._sent.seq, PAGE)
                chunks = [encode(row, await self._data_of(row)) for row in rows]
            except Exception as error:
                if not is_passing(error):
                    raise
                logger.warning("stream_waits_for_postgres", job_id=str(self._job.id), reason=str(error)[:200])
                asyncio.get_running_loop().call_later(self._here.settings.look_s, feed.look)
                return
            for row, chunk in zip(rows, chunks, strict=True):
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
