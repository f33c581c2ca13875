"""The bus: what travels through Redis between nodes and API processes while a job runs.

Wake-ups (a row was committed), progress, previews and nudges to cancel. All of it may be lost: rows are in Postgres,
and who waits for them looks there too. So publishing is bounded in time and never raises. Doorbells are in
``stoker.queue``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stoker import log
from stoker.events import Event, EventId, EventKind
from stoker.subscription import Subscription

JOB_CHANNEL = "stoker:job:{job_id}"
CANCEL_CHANNEL = "stoker:cancel:{node_id}"
PROGRESS_STREAM = "stoker:progress:{job_id}"
PREVIEW_HASH = "stoker:preview:{job_id}"

KEEP_S = 3600
KEEP_PROGRESS = 500
"""A few seconds of the most that a node sends: as long as a client takes to come back."""
MAX_KEPT_BYTES = 4_000
"""Progress that is larger is live alone."""
MAX_PREVIEW_BYTES = 20_000
PUBLISH_TIMEOUT_S = 1.0
PAUSE_AFTER_FAILURE_S = 1.0
"""While Redis is away each publish would wait for its time limit; a rank's step must not pay that."""

logger = log.get(__name__)
T = TypeVar("T")


class Bus:
    """A publisher and reader. One for each process."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._redis: Redis = Redis.from_url(
            redis_url,
            socket_timeout=PUBLISH_TIMEOUT_S,
            socket_connect_timeout=PUBLISH_TIMEOUT_S,
            health_check_interval=10,
            retry=Retry(NoBackoff(), 1),
        )
        self._reachable = True
        self._quiet_until = 0.0

    async def wake(self, job_id: UUID, seq: int) -> None:
        """Say that row ``seq`` of the job is committed."""
        await self._try(lambda: self._redis.publish(JOB_CHANNEL.format(job_id=job_id), orjson.dumps({"seq": seq})))

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
            async with self._redis.pipeline(transaction=False) as pipe:
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

        return await self._try(send) or False

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
            async with self._redis.pipeline(transaction=False) as pipe:
                ask(pipe, PROGRESS_STREAM.format(job_id=job_id))
                pipe.hvals(PREVIEW_HASH.format(job_id=job_id))
                entries, previews = await pipe.execute()
            messages = [*previews, *(fields[b"event"] for _, fields in entries)]
            events = [from_json(orjson.loads(message)["event"]) for message in messages]
            return sorted(events, key=lambda event: event.id)

        return await self._try(read) or []

    async def nudge_cancel(self, node_id: str, job_id: UUID) -> None:
        """Tell a node that a cancel was asked for. Its next heartbeat would tell it too."""
        channel = CANCEL_CHANNEL.format(node_id=node_id)
        await self._try(lambda: self._redis.publish(channel, orjson.dumps({"job_id": str(job_id)})))

    async def listen_cancels(self, node_id: str) -> AsyncIterator[UUID]:
        """Jobs that a node was nudged to cancel, for ever; connects again by itself."""
        async with self.subscribe() as subscription:
            await subscription.add(CANCEL_CHANNEL.format(node_id=node_id))
            async for message in subscription:
                if message.data is not None:
                    yield UUID(message.data["job_id"])

    def subscribe(self) -> Subscription:
        """A new subscription with a connection of its own."""
        return Subscription(self._redis_url)

    async def is_reachable(self) -> bool:
        """Ask Redis now."""
        self._quiet_until = 0.0
        return await self._try(self._redis.ping) is not None

    async def close(self) -> None:
        await self._redis.aclose()

    async def _try(self, act: Callable[[], Awaitable[T]]) -> T | None:
        if time.monotonic() < self._quiet_until:
            return None
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                done = await act()
        except (RedisError, OSError, TimeoutError) as error:
            if self._reachable:
                logger.warning("redis_lost", reason=str(error)[:200], next="live progress is dropped, rows are kept")
            self._reachable = False
            self._quiet_until = time.monotonic() + PAUSE_AFTER_FAILURE_S
            return None
        if not self._reachable:
            logger.info("redis_back")
        self._reachable = True
        return done


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
