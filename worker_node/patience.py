"""Patience: how a finished attempt waits for an engine that is away.

It decides nothing else: who stores or finishes a result asks it whether to try once more.
"""

from __future__ import annotations

import asyncio

from stoker import log
from worker_node.attempt import Attempt

FIRST_S, MOST_S = 0.2, 5.0
GIVE_UP_S = 600.0
"""An engine that is away may hold a finished job this long, and as long as
the job might have run where that is longer and the node is not about to end."""

logger = log.get(__name__)


class Patience:
    """A back-off for ``attempt`` that ``unless`` cuts short."""

    def __init__(self, attempt: Attempt, *, unless: asyncio.Event) -> None:
        self._attempt, self._names, self._unless = attempt, attempt.names, unless
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._pause_s = FIRST_S

    async def wait(self, event: str, error: BaseException) -> bool:
        """Let a pause pass and say whether to try again."""
        most_s = GIVE_UP_S if self._attempt.is_draining else max(GIVE_UP_S, self._attempt.claim.run_timeout_s)
        if self._loop.time() >= self._began + most_s or self._unless.is_set():
            return False
        logger.warning(
            event,
            error=str(error)[:300],
            next=f"tries again in {self._pause_s:g} s",
            **self._names,
        )
        try:
            async with asyncio.timeout(self._pause_s):
                await self._unless.wait()
        except TimeoutError:
            self._pause_s = min(self._pause_s * 2, MOST_S)
            return True
        return False
