"""The lifeline: the first sign that a rank's process is ending.

The kernel tells of an end when all of it is done, which takes a tenth of a second and more where a GPU was in use. A
pipe tells sooner: a process that ends closes its highest descriptors first. It is a sign and no more: who closes it in
other ways has not ended, and who leaves it to a forked child is not heard. ``processes`` waits for both.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from pathlib import Path

_HIGHEST_FD = 4095
_EXITING = 0x4
_STATE, _FLAGS, _EXIT_CODE = 0, 6, 49


class Lifeline:
    """The parent's end of one rank's pipe; ``rank_fd`` is what the rank inherits."""

    def __init__(self) -> None:
        self.fd, self.rank_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def handed_over(self) -> None:
        """Close the rank's end here: the rank has it, or never will."""
        if self.rank_fd >= 0:
            os.close(self.rank_fd)
            self.rank_fd = -1

    def close(self) -> None:
        """Close both ends."""
        self.handed_over()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def hold(fd: int) -> None:
    """Hold a rank's end for as long as the process lives, under a number higher than what it will open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, min(_HIGHEST_FD, soft - 1))
        os.close(fd)


def exit_code_of(pid: int) -> int | None:
    """Read with what code a process is ending, negative for a signal; None where it is not, or cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        is_ending = fields[_STATE] in "ZX" or int(fields[_FLAGS]) & _EXITING
        status = int(fields[_EXIT_CODE])
    except (OSError, IndexError, ValueError):
        return None
    if not is_ending:
        return None
    return -(status & 0x7F) if status & 0x7F else status >> 8
