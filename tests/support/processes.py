"""Wait for processes that are not our children."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable


class Watched:
    """Processes as they are now: ``have_ended`` waits for their end, whoever their parent is."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pidfds = {pid: os.pidfd_open(pid) for pid in pids}

    def have_ended(self, *, within_s: float) -> bool:
        for pidfd in self._pidfds.values():
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            if not poller.poll(within_s * 1000):
                return False
        return True
