"""Gathered: what is asked for while a transaction is under way waits for it, and is done by the next one, all together.

A burst then costs little more than its rows, and whoever comes alone waits for nobody. It knows nothing of jobs:
``stoker.submits`` and the node's records say what is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from stoker.database import is_passing

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gathered(Generic[Item, Answer]):
    """``act`` does all of some items or none, in order, within ``limit_s``. Belongs on one event loop."""

    def __init__(
        self, act: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]], *, most: int, limit_s: float
    ) -> None:
        self._act, self._most, self._limit_s = act, most, limit_s
        self._waiting: dict[Hashable, list[tuple[Item, asyncio.Future[Answer]]]] = {}
        self._acting: set[asyncio.Task[None]] = set()

    async def ask(self, key: Hashable, item: Item) -> Answer:
        """Do it, with others of this key. A caller that is cancelled while it is done may have had it done, as ever.

        Raises:
            TimeoutError: it took too long; it may have been done.
            Exception: what ``act`` raised, for this item alone or because Postgres is away.
        """
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if key in self._waiting:
            self._waiting[key].append((item, done))
        else:
            self._waiting[key] = []
            acting = asyncio.create_task(self._act_on(key, (item, done)))
            self._acting.add(acting)
            acting.add_done_callback(self._acting.discard)
        return await done

    async def _act_on(self, key: Hashable, first: tuple[Item, asyncio.Future[Answer]]) -> None:
        """Do what waits under this key until nothing does, but what nobody waits for any more."""
        batch = [first]
        try:
            while batch:
                await self._do(batch)
                waiting = [(item, done) for item, done in self._waiting[key] if not done.done()]
                batch, self._waiting[key] = waiting[: self._most], waiting[self._most :]
        finally:
            for _, done in (*batch, *self._waiting.pop(key)):
                done.cancel()  # only where this task was cancelled: the process ends

    async def _do(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            async with asyncio.timeout(self._limit_s):  # a silent connection must not stop all that come after
                answers = await self._act([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and nobody else
            if len(batch) > 1 and not (is_passing(error) or isinstance(error, TimeoutError)):
                for one in batch:  # refused as a whole, perhaps for one's sake
                    await self._do([one])
                return
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), answer in zip(batch, answers, strict=True):
            if not done.done():
                done.set_result(answer)
