"""What was read of Postgres a moment ago: a burst of requests asks once who calls and which version an app has.

Another replica or an admin's SQL changes what is remembered here unheard, so it is for what may be half a second old.
``connections`` holds one for each kind of answer; a route that changes such a thing itself forgets it at once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

KEPT_S = 0.5
MOST = 1000

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """Answers by key. A refusal, which is an exception, is not kept."""

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._answers: dict[Hashable, tuple[float, Answer]] = {}

    async def get(self, key: Hashable, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """What was read for ``key``, as it was when that began, no longer ago than is allowed; else read it now."""
        now = time.monotonic()
        kept = self._answers.get(key)
        if kept is not None and now - kept[0] < self._kept_s:
            return kept[1]
        answer = await read()
        if len(self._answers) >= MOST:
            self._answers.clear()
        self._answers[key] = (now, answer)
        return answer

    def forget(self) -> None:
        """Read everything anew."""
        self._answers.clear()
