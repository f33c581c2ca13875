"""The bus: what travels through Redis between nodes and API processes while a job runs.

Wake-ups (a row was committed), progress, previews and nudges to cancel. All of it may be lost: rows are in Postgres,
and who waits for them looks there too. So publishing is bounded in time and never raises. Doorbells are in
``stoker.queue``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from redis.asyncio.client import Pipeline

from stoker import log
from stoker.events import Event, EventId, EventKind
from stoker.redis_link import RedisLink
from stoker.subscription import Subscription

JOB_CHANNEL = "stoker:job:{job_id}"
TENANT_CHANNEL = "stoker:tenant:{tenant_id}"
CANCEL_CHANNEL = "stoker:cancel:{node_id}"
PROGRESS_STREAM = "stoker:progress:{job_id}"
PREVIEW_HASH = "stoker:preview:{job_id}"

KEEP_S = 3600
KEEP_ENDED_S = 60
"""Of a job that has ended the newest progress alone is kept, for so long: its rows say all the rest."""
KEEP_PROGRESS = 500
"""A few seconds of the most that a node sends: as long as a client takes to come back."""
MAX_KEPT_BYTES = 4_000
"""Progress that is larger is live alone."""
MAX_PREVIEW_BYTES = 20_000
TELL_AFTER_S, TELL_EVERY_S = 0.002, 0.02

logger = log.get(__name__)


class Bus:
    """A publisher and reader. One for each process.

    ``progress_url``: a Redis of its own for progress and previews, so that they take no room from the doorbells.
    """

    def __init__(self, redis_url: str, progress_url: str | None = None) -> None:
        self._link = RedisLink(redis_url, loses="wake-ups are dropped, rows are kept")
        self._live = self._link
        if progress_url is not None and progress_url != redis_url:
            self._live = RedisLink(progress_url, loses="live progress is dropped, rows are kept")
        self._untold: dict[UUID, _News] = {}
        self._telling: asyncio.Task[None] | None = None
        self._told_at = 0.0

    async def wake(self, job_id: UUID, seq: int, tenant_id: UUID | None = None, *, is_final: bool = False) -> None:
        """Say that row ``seq`` of the job is committed, to who follows it or its tenant's jobs."""
        await self._say({job_id: _News(seq, tenant_id, is_final)})

    def tell(self, job_id: UUID, seq: int, tenant_id: UUID | None = None, *, is_final: bool = False) -> None:
        """``wake`` a moment later, without waiting for Redis: what comes together goes together.

        The moment is that of whoever goes on with the job now. Where there is much to tell it is longer: each journey
        to Redis takes as much of the processor as a job's way through Postgres.
        """
        said = self._untold.get(job_id)
        seq, is_final = max(seq, said.seq if said else 0), is_final or (said is not None and said.is_final)
        self._untold[job_id] = _News(seq, tenant_id, is_final)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._untold:
                due = self._told_at + TELL_EVERY_S
                await asyncio.sleep(max(TELL_AFTER_S, due - time.monotonic()))
                self._told_at = time.monotonic()
                news, self._untold = self._untold, {}
                await self._say(news)
        finally:
            self._telling = None

    async def _say(self, news: Mapping[UUID, _News]) -> None:
        ended = [job_id for job_id, new in news.items() if new.is_final]
        together = self._live is self._link

        async def publish() -> None:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for job_id, new in news.items():
                    pipe.publish(JOB_CHANNEL.format(job_id=job_id), orjson.dumps({"seq": new.seq}))
                for tenant_id in {new.tenant_id for new in news.values() if new.tenant_id is not None}:
                    pipe.publish(TENANT_CHANNEL.format(tenant_id=tenant_id), b"{}")
                if together:
                    _shorten(pipe, ended)
                await pipe.execute()

        async def shorten() -> None:
            async with self._live.redis.pipeline(transaction=False) as pipe:
                _shorten(pipe, ended)
                await pipe.execute()

        await self._link.ask(publish)
        if ended and not together:
            await self._live.ask(shorten)

    async def progress(self, job_id: UUID, event: Event) -> bool:
        """Send progress or a preview to who follows the job, and keep it a while for who comes back.

        The stream takes ids that rise alone: what an attempt says after another has spoken is not kept, nor is a copy.

        False: Redis did not take it.
        """
        message = orjson.dumps({"event": to_json(event)})
        if event.kind is EventKind.PREVIEW and len(message) > MAX_PREVIEW_BYTES:
            logger.warning(
                "preview_dropped",
                job_id=str(job_id),
                attempt=event.id.attempt,
                rank=event.data.get("rank"),
                size_bytes=len(message),
                limit=MAX_PREVIEW_BYTES,
            )
            return False

        async def send() -> bool:
            async with self._live.redis.pipeline(transaction=False) as pipe:
                if event.kind is EventKind.PREVIEW:
                    key = PREVIEW_HASH.format(job_id=job_id)
                    pipe.hset(key, str(event.data.get("rank") or 0), message)
                    pipe.expire(key, KEEP_S)
                elif len(message) <= MAX_KEPT_BYTES:
                    key = PROGRESS_STREAM.format(job_id=job_id)
                    pipe.xadd(key, {"event": message}, _place(event.id), maxlen=KEEP_PROGRESS, approximate=False)
                    pipe.expire(key, KEEP_S)
                pipe.publish(JOB_CHANNEL.format(job_id=job_id), message)
                for answer in await pipe.execute(raise_on_error=False):
                    if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
                        raise answer
            return True

        return await self._live.ask(send) or False

    async def newest_progress(self, job_id: UUID, attempt: int) -> list[Event]:
        """The attempt's last progress and the newest preview of each rank, in order. Empty while Redis is away."""
        kept = await self._kept(job_id, lambda pipe, key: pipe.xrevrange(key, count=1))
        return [event for event in kept if event.id.attempt == attempt]

    async def progress_after(self, job_id: UUID, last: EventId) -> list[Event]:
        """What is kept of the progress past ``last``, and the newest previews past it, in order."""
        kept = await self._kept(job_id, lambda pipe, key: pipe.xrange(key, min=f"({_place(last)}", count=KEEP_PROGRESS))
        return [event for event in kept if event.id > last]

    async def _kept(self, job_id: UUID, ask: Callable[[Pipeline, str], object]) -> list[Event]:
        async def read() -> list[Event]:
            async with self._live.redis.pipeline(transaction=False) as pipe:
                ask(pipe, PROGRESS_STREAM.format(job_id=job_id))
                pipe.hvals(PREVIEW_HASH.format(job_id=job_id))
                entries, previews = await pipe.execute()
            messages = [*previews, *(fields[b"event"] for _, fields in entries)]
            events = [from_json(orjson.loads(message)["event"]) for message in messages]
            return sorted(events, key=lambda event: event.id)

        return await self._live.ask(read) or []

    async def nudge_cancel(self, node_id: str, job_id: UUID) -> None:
        """Tell a node that a cancel was asked for. Its next heartbeat would tell it too."""
        channel = CANCEL_CHANNEL.format(node_id=node_id)
        await self._link.ask(lambda: self._link.redis.publish(channel, orjson.dumps({"job_id": str(job_id)})))

    async def listen_cancels(self, node_id: str) -> AsyncIterator[UUID]:
        """Jobs that a node was nudged to cancel, for ever; connects again by itself."""
        async with self.subscribe() as subscription:
            await subscription.add(CANCEL_CHANNEL.format(node_id=node_id))
            async for message in subscription:
                if message.data is not None:
                    yield UUID(message.data["job_id"])

    def subscribe(self) -> Subscription:
        """A new subscription with a connection of its own, to all but the progress that has its own Redis."""
        return Subscription(self._link.url)

    def subscribe_all(self) -> list[Subscription]:
        """One for each Redis that messages about jobs come through."""
        return [Subscription(link.url) for link in self._links]

    async def is_reachable(self) -> bool:
        """Ask Redis now."""
        return await self._link.is_reachable()

    async def close(self) -> None:
        if self._telling is not None:
            await self._telling
        for link in self._links:
            await link.close()

    @property
    def _links(self) -> list[RedisLink]:
        return [self._link] if self._live is self._link else [self._link, self._live]


class _News(NamedTuple):
    seq: int
    tenant_id: UUID | None
    is_final: bool


def _shorten(pipe: Pipeline, ended: Iterable[UUID]) -> None:
    """Jobs have ended: who comes back needs their rows, and there may be ten thousand of them an hour."""
    for job_id in ended:
        stream = PROGRESS_STREAM.format(job_id=job_id)
        pipe.xtrim(stream, maxlen=1, approximate=False)
        pipe.expire(stream, KEEP_ENDED_S)
        pipe.expire(PREVIEW_HASH.format(job_id=job_id), KEEP_ENDED_S)


def _place(event_id: EventId) -> str:
    """The event's id in its job's stream, in the same order. A client may send back any number: Redis has 64 bits."""
    return f"{event_id.seq}-{min(event_id.attempt, 2**31 - 1) << 32 | min(event_id.n, 2**32 - 1)}"


def to_json(event: Event) -> dict[str, Any]:
    """An event as it travels."""
    return {
        "id": str(event.id),
        "kind": event.kind.value,
        "data": event.data,
        "created_at": event.created_at.isoformat(),
    }


def from_json(value: Mapping[str, Any]) -> Event:
    """The event that ``to_json`` wrote."""
    created_at = datetime.fromisoformat(value["created_at"])
    return Event(EventId.parse(value["id"]), EventKind(value["kind"]), value["data"], created_at)
