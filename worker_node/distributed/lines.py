"""Log lines that wait to be sent. Those that find no room are dropped and counted: a log must not slow a worker."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator

from worker_node.distributed.batch import Line, Lost

_MOST = 10_000


class Lines:
    """One rank's. Any thread adds, at any moment; one at a time takes."""

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: collections.deque[Line] = collections.deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, line: Line) -> None:
        """Have a line wait, or drop it."""
        if len(self._waiting) >= _MOST:
            self.lost += 1
        else:
            self._waiting.append(line)

    def take(self, has_room: Callable[[int], bool]) -> Iterator[Line | Lost]:
        """Take what there is room for, in bytes. What is ``lost`` then still has to be told, when there is room."""
        while self._waiting or self.lost:
            if self.lost:
                told = Lost(self.lost)
                if not has_room(told.cost_bytes):
                    self.lost += len(self._waiting)
                    self._waiting.clear()
                    return
                self.lost = 0
                yield told
            elif has_room((line := self._waiting.popleft()).cost_bytes):
                yield line
            else:
                self.lost += 1
