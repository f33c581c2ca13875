"""The cancel flag: one number in memory that the parent shares with its ranks.

The parent writes the number of the call that shall stop; a rank compares it with the call it works on. Reading costs
no system call, so a worker may ask at every step. The memory has no name in the file system: nothing is left behind,
whoever dies.
"""

from __future__ import annotations

import mmap
import os

_SIZE_BYTES = 8


class CancelFlag:
    """Number of the newest call to be cancelled; 0 before the first."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, _SIZE_BYTES)
        # One aligned native store: a reader never sees half a number.
        self._number = memoryview(self._memory).cast("Q")

    @classmethod
    def create(cls) -> CancelFlag:
        """Make a flag whose ``fd`` can be handed to child processes."""
        fd = os.memfd_create("runner-cancel")
        os.ftruncate(fd, _SIZE_BYTES)
        return cls(fd)

    def cancel(self, call: int) -> None:
        """Ask the ranks to stop ``call``; nothing once the flag is closed, for then they are gone."""
        if not self._memory.closed:
            self._number[0] = call

    def names(self, call: int) -> bool:
        """Tell whether ``call`` is to be cancelled."""
        return self._number[0] == call

    def close(self) -> None:
        """Give the memory back."""
        if not self._memory.closed:
            self._number.release()
            self._memory.close()
            os.close(self.fd)
