"""Ahead: the jobs that a seat has claimed for when its run ends, so that a deep queue of short ones awaits no commit.

While one job runs, the ends of those before are recorded, and in the same transactions the next ones are claimed. That
pays where runs are about as short as a commit, and only there: a job that is claimed ahead could have begun elsewhere,
so it is given back, unharmed, if the one before it lasts. ``work`` has one for each seat that it is on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from worker_node.attempt import Attempt

MOST = 4
"""So many claims are ahead or on their way at most: each is a lease, and a result in memory while Postgres is away."""
PAUSE_S = 0.05
"""How long no further claim ahead is tried after one that found nothing."""


class Ahead:
    """Of one seat, after runs of less than ``below_s``: beside longer ones a commit is little.

    What was claimed waits for its turn for twice that at most; then ``give_back`` gets it. Neither that nor a claim may
    raise: no result is lost for the sake of a claim.
    """

    def __init__(self, give_back: Callable[[Attempt], Coroutine[Any, Any, None]], below_s: float) -> None:
        self._give_back, self._below_s = give_back, below_s
        self._loop = asyncio.get_running_loop()
        self._claiming: deque[asyncio.Task[Attempt | None]] = deque()
        self._leaving: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._not_before, self._was_late = 0.0, False

    def pays(self, ran_s: float) -> bool:
        """Whether to have a claim ahead in the place of one that was taken, after a run that took so long."""
        return ran_s < self._below_s and self._loop.time() >= self._not_before

    def lacks_one(self, ran_s: float) -> bool:
        """Whether one more would have kept the seat at work, and would not wait for long behind such runs."""
        return self._was_late and len(self._claiming) < MOST and self.pays(ran_s * (len(self._claiming) + 1))

    def begin(self, claiming: Coroutine[Any, Any, Attempt | None]) -> None:
        """Claim while the seat's next job runs."""
        self._claiming.append(asyncio.create_task(claiming))
        if self._timer is None:
            self._timer = self._loop.call_later(2 * self._below_s, self.drop)

    async def taken(self) -> Attempt | None:
        """What is claimed, the first of it, as soon as there is something. From then on it is the caller's."""
        self._stop_timer()
        attempt: Attempt | None = None
        self._was_late = False
        while self._claiming and attempt is None:
            claiming = next((one for one in self._claiming if one.done()), None)
            if claiming is None:  # one may last: its end is tried again, or its app is locked
                self._was_late = True
                await asyncio.wait(self._claiming, return_when=asyncio.FIRST_COMPLETED)
                continue
            self._claiming.remove(claiming)
            attempt = claiming.result()
            if attempt is None:
                self._not_before = self._loop.time() + PAUSE_S
        if self._claiming:
            self._timer = self._loop.call_later(2 * self._below_s, self.drop)
        return attempt

    def drop(self) -> None:
        """Give back what was claimed, or is about to be."""
        self._stop_timer()
        while self._claiming:
            leaving = asyncio.create_task(self._drop(self._claiming.popleft()))
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
