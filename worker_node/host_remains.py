"""Remains: what is still there of an app's ranks, or of the session of its last process, until the kernel is done.

What was killed holds its GPU's memory for a while. ``worker_node.host`` holds one for its app.
"""

from __future__ import annotations

from stoker import log
from worker_node.sessions import end_ranks, session_ends

KERNEL_S = 60.0
"""How long the kernel may take to end processes that were killed, and to give their GPU's memory back."""

logger = log.get(__name__)


class Remains:
    """``name`` is for log lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._session: int | None = None

    def are_of(self, session: int) -> None:
        """The process that led this session has ended."""
        self._session = session

    async def are_gone(self) -> bool:
        """Wait until nothing is left, and say whether that was in time."""
        session = self._session
        if session is None:
            return True
        if not await session_ends(session, KERNEL_S):
            logger.error("ranks_are_still_there", app=self._name, session=session)
            return False
        if session == self._session:
            self._session = None
        return True

    async def end_ranks(self, session: int) -> bool:
        """Kill the ranks of a process that does not do so itself, and say whether they were gone in time."""
        return await end_ranks(session, KERNEL_S)
