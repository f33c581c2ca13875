"""The window: how far a rank may be ahead of its caller, in bytes.

What a rank sends is charged to its window until the caller has taken it, or until it is thrown away. The parent says
so through a counter that the kernel keeps and both ends have open (an eventfd): nobody polls, and a rank can wait for
it. What to do without room (wait, replace, drop) is ``outbox``'s business.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

WINDOW_BYTES: Final = 16 * 2**20
"""Also the most that waits in the parent for a slow caller, for each rank."""

OUTPUT_BYTES: Final = WINDOW_BYTES * 3 // 4
PROGRESS_BYTES: Final = WINDOW_BYTES // 2
LOG_BYTES: Final = WINDOW_BYTES
"""How much may be in flight for each sort to be sent: outputs leave room for logs, progress leaves room for outputs."""


class SendWindow:
    """A rank's end. Not for several threads at once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._in_flight_bytes = 0

    def has_room(self, size_bytes: int, limit_bytes: int) -> bool:
        """Tell whether so much may be sent. What is larger than the limit may go alone."""
        return not self._in_flight_bytes or self._in_flight_bytes + size_bytes <= limit_bytes

    def charge(self, size_bytes: int) -> None:
        """Note that so much is sent."""
        self._in_flight_bytes += size_bytes

    def refresh(self) -> None:
        """Take note of what the parent has granted since."""
        with contextlib.suppress(BlockingIOError):
            self._in_flight_bytes -= os.eventfd_read(self.fd)


class ReceiveWindow:
    """The parent's end, one for each rank."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._here_bytes = self._taken_bytes = 0

    def received(self, size_bytes: int) -> None:
        """Note that so much has come."""
        self._here_bytes += size_bytes

    def taken(self, size_bytes: int) -> None:
        """Note that so much of what came is out of the way; tell the rank now and then, and when nothing is left."""
        self._here_bytes -= size_bytes
        self._taken_bytes += size_bytes
        if (self._taken_bytes >= WINDOW_BYTES // 32 or self._here_bytes <= 0) and self.fd >= 0:
            os.eventfd_write(self.fd, self._taken_bytes)
            self._taken_bytes = 0

    def close(self) -> None:
        """Give the counter back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
