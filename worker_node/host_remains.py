"""Remains: what is still there of an app's ranks, or of the session of its last process, until the kernel is done.

What was killed holds its GPU's memory for a while. ``worker_node.host`` holds one for its app.
"""

from __future__ import annotations

from collections.abc import Iterable

from stoker.errors import WorkerCrashed
from worker_node.sessions import end_ranks, session_ends

KERNEL_S = 60.0
"""How long the kernel may take to end processes that were killed, and to give their GPU's memory back."""


class RanksRemain(WorkerCrashed):
    """Ranks that were ended are still there, and so is what they hold of their GPUs."""

    code, title, retryable, crash = "ranks_remain", "Ranks are still there", True, False
    hint = "A process that SIGKILL does not end hangs in the kernel: look at dmesg and nvidia-smi."


class Remains:
    """``name`` is for messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sessions: set[int] = set()

    def are_of(self, sessions: Iterable[int]) -> None:
        """The processes that led these sessions have ended."""
        self._sessions.update(sessions)

    async def end(self, *, ranks_of: int | None = None) -> None:
        """Wait until nothing is left. ``ranks_of``: a process that lives and does not end its ranks; they are killed.

        Raises:
            RanksRemain: it takes too long.
        """
        if ranks_of is not None and not await end_ranks(ranks_of, KERNEL_S):
            raise self._remain(ranks_of)
        for session in list(self._sessions):
            if not await session_ends(session, KERNEL_S):
                raise self._remain(session)
            self._sessions.discard(session)

    def _remain(self, session: int) -> RanksRemain:
        return RanksRemain(f"ranks of {self._name} in session {session} have not ended {KERNEL_S:g} s after SIGKILL")
