"""The events of all of a tenant's jobs as Server-Sent Events: replay, then follow, until the client goes.

As ``api.stream``: subscribe first, then read, then wait to be woken. Rows alone: progress is of one job's stream.
What an open transaction holds back is asked for again soon, since nothing will wake us for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import orjson

from api.connections import Connections
from api.hub import Feed
from api.job_json import with_own_link
from api.stream import RETRY_MS, RETRY_ON_SHUTDOWN_MS
from stoker import log, tenant_events
from stoker.database import is_passing
from stoker.tenant_events import START, Cursor, EventFilters, EventPage, Gap, TenantEvent

PAUSE_S = 0.05
"""Between two reads of one stream, however often it is woken: busy tenants are read in pages, not row by row."""
GAP = {
    "reason": "Events after the last one that was seen have been deleted, or lost with the database: look at the jobs."
}

logger = log.get(__name__)


def event_json(event: TenantEvent, base_url: str) -> dict[str, Any]:
    """An event as callers see it."""
    return {
        "job_id": str(event.job_id),
        "app": event.app,
        "parent_id": str(event.parent_id) if event.parent_id else None,
        "seq": event.seq,
        "attempt": event.attempt,
        "created_at": event.created_at.isoformat().replace("+00:00", "Z"),
        "data": with_own_link(event.kind, event.data, base_url),
    }


class TenantStream:
    """The stream of one client. ``after`` None: from now on."""

    def __init__(
        self, here: Connections, tenant_id: UUID, after: Cursor | None, filters: EventFilters, base_url: str
    ) -> None:
        self._here, self._tenant_id, self._filters, self._base_url = here, tenant_id, filters, base_url
        self._place = after
        self._told_of: Gap | None = None
        self._pause_s = PAUSE_S
        self._spoke = -here.settings.ping_s  # at once: a place to come back to, before there is any event

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the response."""
        settings, stopping = self._here.settings, self._here.stopping
        self._here.metrics.streams.inc()
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            async with self._here.hub.follow_tenant(self._tenant_id) as feed:
                feed.look()
                while not stopping.is_set():
                    if feed.changed.is_set():
                        feed.take()
                        async for chunk in self._read(feed):
                            yield chunk
                    for chunk in self._ping():
                        yield chunk
                    await self._pause(feed, self._spoke + settings.ping_s)
                yield b"retry: %d\n\n" % RETRY_ON_SHUTDOWN_MS
        finally:
            self._here.metrics.streams.dec()

    async def _read(self, feed: Feed) -> AsyncIterator[bytes]:
        """All that may be read now. While Postgres is away: nothing, and the feed looks again."""
        while not self._here.stopping.is_set():
            page = await self._page(feed)
            if page is None:
                return
            if page.gap not in (None, self._told_of):
                self._told_of = page.gap
                self._spoke = time.monotonic()
                yield b"event: gap\ndata: %s\n\n" % orjson.dumps(GAP)
            for event in page.events:
                self._here.metrics.sent.labels(event.kind.value).inc()
                data = orjson.dumps(event_json(event, self._base_url))
                self._spoke = time.monotonic()
                yield b"event: %s\nid: %s\ndata: %s\n\n" % (event.kind.value.encode(), str(event.cursor).encode(), data)
            self._place, feed.seen = page.cursor, page.cursor.mark - 1  # rows at the place are still to be read
            if page.has_more:
                # Filters may leave out a long history: who is cut while it is read need not begin again.
                for chunk in self._ping():
                    yield chunk
                continue
            if page.is_held:
                asyncio.get_running_loop().call_later(self._pause_s, feed.look)
                self._pause_s = min(2 * self._pause_s, self._here.settings.look_s)
            else:
                self._pause_s = PAUSE_S
            return

    def _ping(self) -> Iterator[bytes]:
        """A place to come back to, when nothing was said for a while."""
        if time.monotonic() - self._spoke >= self._here.settings.ping_s and self._place is not None:
            self._spoke = time.monotonic()
            yield b"event: place\nid: %s\ndata: {}\n\n" % str(self._place).encode()

    async def _page(self, feed: Feed) -> EventPage | None:
        try:
            if self._place is None:
                self._place = (
                    START if self._filters.job_ids else await tenant_events.here(self._here.db, self._tenant_id)
                )
            return await tenant_events.read(self._here.db, self._tenant_id, self._place, self._filters)
        except Exception as error:
            if not is_passing(error):
                raise
            logger.warning("stream_waits_for_postgres", reason=str(error)[:200], tenant_id=str(self._tenant_id))
            asyncio.get_running_loop().call_later(self._here.settings.look_s, feed.look)
            return None

    async def _pause(self, feed: Feed, deadline: float) -> None:
        """Until there is something to read or to say, and a moment in any case."""
        waits = [asyncio.ensure_future(event.wait()) for event in (feed.changed, self._here.stopping)]
        try:
            timeout = max(deadline - time.monotonic(), PAUSE_S)
            done, _ = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if waits[0] in done and waits[1] not in done:
                await asyncio.wait(waits[1:], timeout=PAUSE_S)
        finally:
            for wait in waits:
                wait.cancel()
