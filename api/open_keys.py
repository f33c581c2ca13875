"""Open keys: those by which streams are read. A stream is told nothing more once its key is revoked or past its time.

One look at Postgres each half second for all streams of the process, as long as there are any. ``api.auth`` asks for
each request; a stream is one request that may last for days.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import keys, log
from stoker.database import is_passing
from stoker.keys import Caller

LOOK_S = 0.5

logger = log.get(__name__)


class OpenKeys:
    """One for each process."""

    def __init__(self, db: AsyncEngine) -> None:
        self._db = db
        self._open = Counter[str]()
        self._ended: set[str] = set()
        self._watching: asyncio.Task[None] | None = None

    async def guard(self, caller: Caller, body: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        """``body`` until the caller's key ends: what comes then is not sent, and the stream with it."""
        key_id = caller.key_id
        self._open[key_id] += 1
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            async with aclosing(body):
                async for chunk in body:
                    if key_id in self._ended:
                        return
                    yield chunk
        finally:
            self._open[key_id] -= 1
            if not self._open[key_id]:
                del self._open[key_id]
                self._ended.discard(key_id)

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        try:
            while self._open:
                await asyncio.sleep(LOOK_S)
                await self._look()
        finally:
            self._watching = None

    async def _look(self) -> None:
        try:
            ended = await keys.ended(self._db, list(self._open))
        except Exception as error:
            if not is_passing(error):
                raise
            return  # streams outlive Postgres, and so may a key
        for key_id in ended & self._open.keys() - self._ended:
            logger.info("streams_of_an_ended_key", key_id=key_id, streams=self._open[key_id])
            self._ended.add(key_id)
