"""Patience: how a finished attempt waits for an engine that is away.

It decides nothing else: who stores or finishes a result asks it whether to try once more.
"""

from __future__ import annotations

import asyncio

from stoker import log
from worker_node.attempt import Attempt

FIRST_S, MOST_S = 0.2, 5.0

logger = log.get(__name__)


class Patience:
    """A back-off for ``attempt`` that ``unless`` cuts short."""

    def __init__(self, attempt: Attempt, *, unless: asyncio.Event, give_up_s: float) -> None:
        self._names, self._unless = attempt.names, unless
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + give_up_s
        self._pause_s = FIRST_S

    async def wait(self, event: str, error: BaseException) -> bool:
        """Let a pause pass and say whether to try again."""
        if self._loop.time() >= self._until or self._unless.is_set():
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
