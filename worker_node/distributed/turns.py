"""Turns: one call at a time, first come first served, with a bound on how many wait."""

from __future__ import annotations

import asyncio
import collections

from worker_node.distributed.errors import CallTimeout, RunnerError, TooManyWaiting


class Turns:
    """A first-in-first-out lock that can be counted and refused."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = False
        self._waiters: collections.deque[asyncio.Future[None]] = collections.deque()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiters)

    def try_take(self) -> bool:
        """Take the turn if it is free."""
        is_free, self._taken = not self._taken, True
        return is_free

    async def take(self, deadline: float | None, timeout_s: float) -> None:
        """Wait for the turn until ``deadline``, in the loop's time; whoever gets it gives it back.

        Raises:
            TooManyWaiting: the bound is reached.
            CallTimeout: it did not come in ``timeout_s``.
        """
        try:
            async with asyncio.timeout_at(deadline):
                await self._take()
        except TimeoutError as exc:
            what, hint = "the call's turn did not come", "Others are served first: allow more time, or see status()."
            raise CallTimeout(timeout_s=timeout_s, what=what, hint=hint) from exc

    async def _take(self) -> None:
        if self.try_take():
            return
        if len(self._waiters) >= self._limit:
            raise TooManyWaiting(waiting=len(self._waiters))
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine in self._waiters:
                self._waiters.remove(mine)
            elif mine.done() and not mine.cancelled() and mine.exception() is None:
                # The turn came in the moment in which its owner went away.
                self.give_back()
            raise

    def give_back(self) -> None:
        """Pass the turn to the next in line."""
        while self._waiters:
            following = self._waiters.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._taken = False

    def refuse(self, error: RunnerError) -> None:
        """Send everybody away who waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)
