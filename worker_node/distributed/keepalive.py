"""KeepAlive: runs an action after each stretch of idleness, such as a call that keeps caches and connections warm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger("worker_node.distributed")


class KeepAlive:
    """A timer in the event loop; with no interval it never fires."""

    def __init__(self, interval_s: float | None, action: Callable[[], Awaitable[None]]) -> None:
        self._interval_s, self._action = interval_s, action
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count idleness, from now."""
        if self._interval_s is not None:
            self.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._fire)

    def cancel(self) -> None:
        """Stop counting; an action that runs goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._task = asyncio.ensure_future(self._act())

    async def _act(self) -> None:
        try:
            await self._action()
        except RuntimeError as exc:
            _log.warning("the keepalive call failed: %s", exc)
