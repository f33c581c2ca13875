"""LossyHandler: log records to a stream that may be slow, from a thread of its own; what does not fit is counted.

For what ranks say, which may be any amount: the app host's event loop, through which every call goes, must not wait
until the supervisor has read its standard error. ``__main__`` installs it.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TextIO

MAX_WAITING = 1000


class LossyHandler(logging.Handler):
    """Never blocks whoever logs."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        threading.Thread(target=self._write, name="rank-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, or count it where too many wait."""
        try:
            line = self.format(record)
            if self._dropped:
                line += f"\n({self._dropped} lines before this one were dropped)"
            self._lines.put_nowait(line)
            self._dropped = 0
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - logging's own rule: a record that cannot be written ends nothing
            self.handleError(record)

    def _write(self) -> None:
        while True:
            self._stream.write(self._lines.get() + "\n")
            self._stream.flush()
