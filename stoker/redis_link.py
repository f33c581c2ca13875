"""A link to one Redis: what is asked of it is bounded in time and never raises.

For what may be lost. It says once in the log that a Redis is gone, and once that it is back. Used by ``stoker.bus``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stoker import log

TIMEOUT_S = 1.0
AT_ONCE = 32
"""So many requests are under way, each on a connection of its own; the others wait for their turn. A thousand streams
that are opened together, or attempts that speak together, are no reason to give Redis up.
"""
TURN_S = 2.0
"""So long somebody waits for a turn."""
PAUSE_AFTER_FAILURE_S = 1.0
"""While Redis is away each request would wait for its time limit; a rank's step must not pay that."""

AWAY = (RedisError, OSError, TimeoutError, RuntimeError)
"""What says that it cannot be reached: a transport of uvloop that was closed meanwhile says so by a RuntimeError."""

logger = log.get(__name__)
T = TypeVar("T")


class RedisLink:
    """Connects at its first use. ``is_single``: one connection, for who asks one thing at a time."""

    def __init__(self, url: str, *, loses: str, is_single: bool = False) -> None:
        self.url, self._loses = url, loses
        self.redis: Redis = Redis.from_url(
            url,
            socket_timeout=None,  # ``ask`` has the limit; with one here each command takes a task of its own
            socket_connect_timeout=TIMEOUT_S,
            health_check_interval=10,
            retry=Retry(NoBackoff(), 1),
            single_connection_client=is_single,
        )
        self._reachable = True
        self._quiet_until = 0.0
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def ask(self, act: Callable[[], Awaitable[T]]) -> T | None:
        """What ``act`` answers; None while this Redis is away, or where it is too slow for all who ask."""
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError:
            return None  # it does answer: who has a turn finds out if it is away
        try:
            if time.monotonic() < self._quiet_until:
                return None
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    done = await act()
            except AWAY as error:
                if self._reachable:
                    logger.warning("redis_lost", reason=str(error)[:200], next=self._loses)
                self._reachable = False
                self._quiet_until = time.monotonic() + PAUSE_AFTER_FAILURE_S
                return None
        finally:
            self._turn.release()
        if not self._reachable:
            logger.info("redis_back")
        self._reachable = True
        return done

    async def is_reachable(self) -> bool:
        """Ask it now."""
        self._quiet_until = 0.0
        return await self.ask(self.redis.ping) is not None

    async def close(self) -> None:
        await self.redis.aclose()
