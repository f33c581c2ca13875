"""Spare: the next generation of ranks, begun while the present one may still stop in time.

An interpreter with its imports is half of a start and touches no GPU. Whether ranks are replaced is decided in
``dispatch``, and ``warmth`` then goes on with what stands ready here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine

from worker_node.distributed.errors import RunnerError
from worker_node.distributed.pool import Pool


class Spare:
    """Holds at most one pool, spawned and not joined."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, make: Callable[[], Pool]) -> None:
        """Spawn a pool in the background. Where it cannot be, nothing is lost: whoever needs one makes it later."""
        if self._pool is not None:
            return
        with contextlib.suppress(OSError, RunnerError):
            self._pool = make()
            self._go_on(self._pool.spawn())

    def take(self) -> Pool | None:
        """Hand the pool over, spawned or being spawned; None where there is none that is whole."""
        pool, self._pool = self._pool, None
        if pool is not None and not pool.is_whole:
            self._go_on(pool.destroy())
            return None
        return pool

    def drop(self) -> None:
        """End it in the background: the ranks that it would have replaced serve on."""
        if (pool := self._pool) is not None:
            self._pool = None
            pool.kill()
            self._go_on(pool.destroy())

    def drop_now(self, timeout_s: float) -> None:
        """End it, for callers that cannot await."""
        if (pool := self._pool) is not None:
            self._pool = None
            pool.destroy_now(timeout_s)

    async def settle(self) -> None:
        """Wait until what was begun or dropped has come to its end."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _go_on(self, what: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(_quietly(what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(what: Coroutine[None, None, None]) -> None:
    # Who takes the pool spawns what is missing, and says what stands in the way.
    with contextlib.suppress(OSError, RunnerError, RuntimeError):
        await what
