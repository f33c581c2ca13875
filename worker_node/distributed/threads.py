"""Threads that serve one generation of ranks after the other: the one that spawns, and those of the message sockets.

They live as long as the runner. The kernel ends a rank with the thread that spawned it. And the C library keeps what a
thread has received into and has free again, some MiB for each thread that ever did: with new threads for each pool that
grew with every rebuild, up to all that lived at the same time.
"""

from __future__ import annotations

import concurrent.futures

import zmq


class Threads:
    """One runner's. Closed by the runner, and gone when the last socket is closed, too."""

    def __init__(self) -> None:
        self.spawner = concurrent.futures.ThreadPoolExecutor(1, "rank-spawner")
        self._context = zmq.Context()
        self._users = 1

    def enter(self) -> zmq.Context[zmq.Socket[bytes]]:
        """Return what makes sockets; whoever has it closes them and leaves."""
        self._users += 1
        return self._context

    def leave(self) -> None:
        """Have done with sockets."""
        self._users -= 1
        if not self._users:
            self._context.destroy(linger=0)

    def close(self) -> None:
        """Take no more work; what a hub still has stays until it is closed."""
        self.spawner.shutdown(wait=False)
        self.leave()
