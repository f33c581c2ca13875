"""Ahead: the job that a seat has claimed for when its run ends, so that a deep queue of short jobs waits for no commit.

While one job runs, the end of the one before is recorded and in the same transaction the next one is claimed. That pays
where runs are about as short as a commit, and only there: a job that is claimed ahead could have begun elsewhere, so it
is given back, unharmed, if the one before it lasts. ``executor`` has one for each seat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from worker_node.attempt import Attempt

PAUSE_S = 0.5
"""How long no further claim ahead is tried after one that found nothing."""


class Ahead:
    """Of one seat, after runs of less than ``below_s``: beside longer ones a commit is little.

    What was claimed waits for its turn for twice that at most; then ``give_back`` gets it.
    """

    def __init__(self, give_back: Callable[[Attempt], Coroutine[Any, Any, None]], below_s: float) -> None:
        self._give_back, self._below_s = give_back, below_s
        self._loop = asyncio.get_running_loop()
        self._claiming: asyncio.Task[Attempt | None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0

    def pays(self, ran_s: float) -> bool:
        """Whether to claim ahead after a run that took so long."""
        return ran_s < self._below_s and self._loop.time() >= self._not_before

    def begin(self, claiming: Coroutine[Any, Any, Attempt | None]) -> None:
        """Claim while the seat's next job runs. There is none ahead now."""
        self._claiming = asyncio.create_task(claiming)
        self._timer = self._loop.call_later(2 * self._below_s, self.drop)

    async def taken(self) -> Attempt | None:
        """What was claimed, as soon as that is known. From then on it is the caller's."""
        if self._claiming is None:
            return None
        claiming, self._claiming = self._claiming, None
        self._stop_timer()
        attempt = await claiming
        if attempt is None:
            self._not_before = self._loop.time() + PAUSE_S
        return attempt

    def drop(self) -> None:
        """Give back what was claimed, or is about to be."""
        if self._claiming is not None:
            claiming, self._claiming = self._claiming, None
            self._stop_timer()
            leaving = asyncio.create_task(self._drop(claiming))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def settle(self) -> None:
        """Wait until nothing is on its way back."""
        self.drop()
        while self._leaving:
            await asyncio.wait(self._leaving)

    async def _drop(self, claiming: asyncio.Task[Attempt | None]) -> None:
        attempt = await claiming
        if attempt is not None:
            await self._give_back(attempt)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
