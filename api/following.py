"""Following: what happens to one job, batch by batch, until its end. For routes that wait for a job themselves.

Rows come in order and none is missed; so does progress, as far as Redis keeps it. ``api.stream`` is what clients follow
who come back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from api.connections import Connections
from api.hub import Feed
from api.stream import PAGE
from api.told import is_last
from stoker import job_queries, log
from stoker.database import is_passing
from stoker.events import Event, EventId

logger = log.get(__name__)


async def follow(here: Connections, job_id: UUID, *, with_progress: bool = False) -> AsyncGenerator[list[Event], None]:
    """Events, progress before rows and each kind in order; an empty batch where it has been quiet for ``ping_s``.

    The last event of the last batch is the final one, unless the server stops or the job is deleted before.
    """
    seq, seen, spoke = 0, EventId(0), time.monotonic()
    async with here.hub.follow(job_id) as feed:
        feed.look_back()  # what was streamed since the job was stored, and nobody listened
        while not here.stopping.is_set():
            await _changed(here, feed, spoke + here.settings.ping_s)
            has_rows, has_gap, live = feed.take()
            if not with_progress:
                live = []
            elif has_gap:
                live += await here.bus.progress_after(job_id, seen)
            rows = await _rows_after(here, feed, job_id, seq) if has_rows else []
            seq = feed.seen = rows[-1].id.seq if rows else seq
            batch: list[Event] = []
            for event in sorted(live, key=lambda event: event.id):
                if event.id > seen:
                    batch.append(event)
                    seen = event.id
            batch += rows
            if batch or time.monotonic() - spoke >= here.settings.ping_s:
                spoke = time.monotonic()
                yield batch
            if rows and is_last(rows[-1]):
                return
            if feed.is_over:
                return


async def ended(here: Connections, job_id: UUID) -> bool:
    """Wait for the job's end; False if the server stops or the job is deleted before."""
    async with aclosing(follow(here, job_id)) as batches:
        async for batch in batches:
            if batch and is_last(batch[-1]):
                return True
    return False


async def _rows_after(here: Connections, feed: Feed, job_id: UUID, seq: int) -> list[Event]:
    """While Postgres is away: none, and the feed looks again."""
    rows: list[Event] = []
    try:
        while True:
            page = await job_queries.events_after(here.db, job_id, rows[-1].id.seq if rows else seq, PAGE)
            rows += page
            if len(page) < PAGE:
                return rows
    except Exception as error:
        if not is_passing(error):
            raise
        logger.warning("stream_waits_for_postgres", reason=str(error)[:200], job_id=str(job_id))
        asyncio.get_running_loop().call_later(here.settings.look_s, feed.look)
        return rows


async def _changed(here: Connections, feed: Feed, deadline: float) -> None:
    """Wait for the feed, the shutdown, or the time to say something."""
    waits = [asyncio.ensure_future(event.wait()) for event in (feed.changed, here.stopping)]
    try:
        timeout = max(deadline - time.monotonic(), 0)
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
