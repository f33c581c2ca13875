"""Remains: what is still there of an app's ranks, or of the session of its last process, until the kernel is done.

What was killed holds its GPU's memory for a while. ``worker_node.host`` holds one for its app.
"""

from __future__ import annotations

from worker_node.host_values import RanksRemain
from worker_node.sessions import end_ranks, session_ends

KERNEL_S = 60.0
"""How long the kernel may take to end processes that were killed, and to give their GPU's memory back."""


class Remains:
    """``name`` is for messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._session: int | None = None

    def are_of(self, session: int) -> None:
        """The process that led this session has ended."""
        self._session = session

    async def end(self, *, ranks_of: int | None = None) -> None:
        """Wait until nothing is left. ``ranks_of``: a process that lives and does not end its ranks; they are killed.

        Raises:
            RanksRemain: it takes too long.
        """
        if ranks_of is not None and not await end_ranks(ranks_of, KERNEL_S):
            raise self._remain(ranks_of)
        session = self._session
        if session is None:
            return
        if not await session_ends(session, KERNEL_S):
            raise self._remain(session)
        if session == self._session:
            self._session = None

    def _remain(self, session: int) -> RanksRemain:
        return RanksRemain(f"ranks of {self._name} in session {session} have not ended {KERNEL_S:g} s after SIGKILL")
