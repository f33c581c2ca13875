"""Open keys: those by which callers follow or wait for jobs. What a key is held for ends once it is revoked or over.

One look at Postgres each half second for all that is open in the process, as long as there is any. ``api.auth`` asks
for each request; a stream is one request that may last for days, and may be quiet for as long.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import keys, log
from stoker.database import is_passing
from stoker.errors import Unauthenticated
from stoker.keys import Caller

LOOK_S = 0.5

logger = log.get(__name__)


class OpenKeys:
    """One for each process."""

    def __init__(self, db: AsyncEngine) -> None:
        self._db = db
        self._open: dict[str, set[Hold]] = defaultdict(set)
        self._watching: asyncio.Task[None] | None = None
        self._can_look = True

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[Hold]:
        """The caller's key, watched as long as the context lasts."""
        hold, key_id = Hold(), caller.key_id
        self._open[key_id].add(hold)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield hold
        finally:
            self._open[key_id].discard(hold)
            if not self._open[key_id]:
                del self._open[key_id]

    async def guard(self, caller: Caller, body: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        """``body`` until the caller's key ends: what comes then is not sent, and the stream with it."""
        with self.hold(caller) as hold, suppress(Unauthenticated, StopAsyncIteration):
            async with aclosing(body):
                while True:
                    with hold:
                        chunk = await anext(body)
                    yield chunk

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
            # Streams outlive Postgres, and so may a key. Whatever it was: without looks no key would end what is open.
            if self._can_look and not is_passing(error):
                logger.exception("look_at_keys_failed", next="looks again")
            self._can_look = False
            return
        self._can_look = True
        for key_id in ended & self._open.keys():
            logger.info("key_ended", key_id=key_id, open=len(self._open[key_id]))
            for hold in self._open[key_id]:
                hold.end()


class Hold:
    """One thing that a key is open for. As a context: wait inside, any number of times, for what a valid key may have.

    Raises:
        Unauthenticated: the key has ended, before or inside.
    """

    def __init__(self) -> None:
        self._has_ended = False
        self._waits: asyncio.Task[object] | None = None
        self._cancels = 0

    def __enter__(self) -> None:
        self._check()
        self._waits = asyncio.current_task()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, self._waits = self._waits, None
        while task is not None and self._cancels:
            self._cancels -= 1
            task.uncancel()
        is_ours = kind is asyncio.CancelledError and not (task and task.cancelling())
        if kind is None or is_ours:
            self._check()

    def end(self) -> None:
        """Break off what waits. A cancel may be lost on the way (redis-py, at a send's end): each look makes one."""
        self._has_ended = True
        if self._waits is not None:
            self._cancels += 1
            self._waits.cancel()

    def _check(self) -> None:
        if self._has_ended:
            raise Unauthenticated("the key is not valid any more")
