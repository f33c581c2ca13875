"""A subscription: messages of Redis channels over one connection that heals itself.

Pub/sub forgets what is sent while nobody listens. So after each new connection a message without data says: look
yourself. Used by ``stoker.bus``; decides nothing about what a message means.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stoker import log
from stoker.redis_link import AWAY

CONNECT_TIMEOUT_S = 2.0
READ_S = 5.0
SILENCE_S = 15.0
"""A connection that answers no ping for so long is half open: make a new one."""
BACKOFF_S = (0.05, 0.2, 0.5, 1.0, 2.0)

logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """``data`` is None after a new connection was made: anything may have been missed."""

    channel: str | None
    data: Mapping[str, Any] | None


class Subscription:
    """``async with`` it, ``add`` channels at any time, iterate over its messages in one task."""

    def __init__(self, redis_url: str) -> None:
        # redis-py's default socket timeout of 5 s would end every quiet read.
        # Its own retries would hide a lost connection, and what was missed with it.
        self._redis: Redis = Redis.from_url(
            redis_url,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._pubsub: PubSub | None = None
        self._listening: dict[str, asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drop()
        await self._redis.aclose()

    async def add(self, channel: str) -> asyncio.Event:
        """Listen to ``channel`` too. The event is set while Redis has confirmed it, and cleared when it is lost."""
        listening = self._listening.setdefault(channel, asyncio.Event())
        if not listening.is_set():
            await self._tell("subscribe", channel)
        return listening

    async def remove(self, channel: str) -> None:
        if self._listening.pop(channel, None) is not None:
            await self._tell("unsubscribe", channel)

    async def _tell(self, verb: str, channel: str) -> None:
        if self._pubsub is None:
            return
        try:
            await (self._pubsub.subscribe(channel) if verb == "subscribe" else self._pubsub.unsubscribe(channel))
        except AWAY:
            # The reader sees the same broken connection and makes a new one with the channels as they are now.
            logger.debug("subscription_write_failed", channel=channel)

    async def __aiter__(self) -> AsyncIterator[Message]:
        failures = 0
        while True:
            try:
                pubsub = await self._connect()
                if failures:
                    logger.info("subscription_back")
                failures = 0
                yield Message(None, None)
                async for message in self._read(pubsub):
                    yield message
            except AWAY as error:
                if not failures:
                    logger.warning("subscription_lost", reason=str(error)[:200], next="connects again by itself")
                await self._drop()
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1

    async def _connect(self) -> PubSub:
        pubsub = self._redis.pubsub()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await pubsub.ping()
            if self._listening:
                await pubsub.subscribe(*self._listening)
        self._pubsub = pubsub
        return pubsub

    async def _read(self, pubsub: PubSub) -> AsyncIterator[Message]:
        heard = time.monotonic()
        while True:
            raw = await pubsub.get_message(timeout=READ_S)
            if raw is None:
                if time.monotonic() - heard > SILENCE_S:
                    raise TimeoutError("redis answers no ping")
                await pubsub.ping()
                continue
            heard = time.monotonic()
            channel = raw["channel"].decode() if isinstance(raw["channel"], bytes) else ""
            if raw["type"] == "subscribe" and channel in self._listening:
                self._listening[channel].set()
            elif raw["type"] == "message":
                try:
                    data = orjson.loads(raw["data"])
                except orjson.JSONDecodeError:
                    logger.warning("message_dropped", channel=channel, reason="not JSON")
                    continue
                yield Message(channel, data)

    async def _drop(self) -> None:
        for listening in self._listening.values():
            listening.clear()
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it without annotations
