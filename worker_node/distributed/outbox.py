"""The outbox: what a rank says to its parent, sent in batches and never faster than the window allows.

The first of a burst goes at once; what follows shortly after goes together, at the latest a millisecond later. Without
room in the window an output waits, progress is replaced by newer progress, and log lines are dropped and counted.
Reports go last, after all that was said before them. Any thread of the rank may use it.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from worker_node.distributed.batch import Item, Line, Lost
from worker_node.distributed.media import Frame
from worker_node.distributed.segments import is_staged
from worker_node.distributed.window import LOG_BYTES, OUTPUT_BYTES, PROGRESS_BYTES, SendWindow

_LINGER_S = 0.001
_BATCH_ITEMS, _BATCH_BYTES = 128, 2**16

Send = Callable[[dict[str, Any], Sequence[Frame]], None]


class Outbox:
    """One rank's. ``send`` puts a batch on the wire: its fields and the buffers beside them, which it copies."""

    def __init__(self, window: SendWindow, send: Send) -> None:
        self._window, self._send = window, send
        # Reentrant: a destructor that logs may run in the middle of anything.
        self._changed = threading.Condition(threading.RLock())
        self._items: list[list[Any]] = []
        self._buffers: list[Frame] = []
        self._size_bytes = 0
        self._sent_at = 0.0
        self._held: Item | None = None
        self._lost_lines = 0
        self._waiting = 0
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_awake = self._is_starved = self._is_closed = False
        self._thread: threading.Thread | None = None

    def output(self, item: Item) -> None:
        """Send an output or an error; wait while the caller is too far behind."""
        cost = item.cost_bytes
        with self._changed:
            self._release()
            while not self._has_room(cost, OUTPUT_BYTES):
                self._flush()
                self._waiting += 1
                self._wake()
                try:
                    self._changed.wait()
                finally:
                    self._waiting -= 1
            self._add(item, cost, item.value[1:])

    def progress(self, item: Item) -> None:
        """Send progress, or keep it until there is room: the newest replaces what was kept."""
        cost = item.cost_bytes
        with self._changed:
            if self._held is None and self._has_room(cost, PROGRESS_BYTES):
                self._add(item, cost, item.value[1:])
                return
            # Its buffers may be views of memory that the worker changes next.
            self._held = item._replace(value=[frame if is_staged(frame) else bytes(frame) for frame in item.value])
            self._wake()

    def line(self, line: Line) -> None:
        """Send a log line, or drop it: a log must not slow a worker."""
        cost = line.cost_bytes
        with self._changed:
            if self._lost_lines:
                self._tell_lost()
            if not self._lost_lines and self._has_room(cost, LOG_BYTES):
                self._add(line, cost)
            else:
                self._lost_lines += 1
                self._wake()

    def __enter__(self) -> None:
        """Send all that was said so far; what is sent inside the block comes after it, and nothing in between."""
        self._changed.acquire()
        self._release()
        if self._lost_lines:
            self._tell_lost()
        self._flush()

    def __exit__(self, *_: object) -> None:
        """Let others speak again."""
        self._changed.release()

    def close(self) -> None:
        """Have no more deferred; what is to be sent must have been."""
        self._is_closed = True
        os.eventfd_write(self._wake_fd, 1)
        if self._thread is not None:
            self._thread.join()

    def _has_room(self, cost_bytes: int, limit_bytes: int) -> bool:
        if self._window.has_room(cost_bytes, limit_bytes):
            return True
        if self._is_starved:
            # The thread waits for what is granted: read here, it would wait in vain.
            return False
        self._window.refresh()
        return self._window.has_room(cost_bytes, limit_bytes)

    def _release(self) -> None:
        """Send progress that was kept: something comes after it."""
        if (held := self._held) is not None:
            self._held = None
            self._add(held, held.cost_bytes, held.value[1:])

    def _tell_lost(self) -> None:
        lost = Lost(self._lost_lines)
        if self._has_room(lost.cost_bytes, LOG_BYTES):
            self._lost_lines = 0
            self._add(lost, lost.cost_bytes)

    def _add(self, item: Item | Line | Lost, cost_bytes: int, buffers: Sequence[Frame] = ()) -> None:
        self._window.charge(cost_bytes)
        self._items.append(item.packed())
        self._buffers += buffers
        self._size_bytes += cost_bytes
        is_full = len(self._items) >= _BATCH_ITEMS or self._size_bytes >= _BATCH_BYTES
        # Buffers may be views of memory that the worker changes next.
        if is_full or buffers or time.monotonic() - self._sent_at >= _LINGER_S:
            self._flush()
        else:
            self._wake()

    def _flush(self) -> None:
        if self._items:
            items, buffers = self._items, self._buffers
            self._items, self._buffers, self._size_bytes = [], [], 0
            self._send({"items": items}, buffers)
            self._sent_at = time.monotonic()

    def _wake(self) -> None:
        """Have the thread look after what could not be sent at once."""
        if self._is_awake:
            return
        self._is_awake = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_after, name="rank-outbox", daemon=True)
            self._thread.start()
        os.eventfd_write(self._wake_fd, 1)

    def _look_after(self) -> None:
        woken, granted = select.poll(), select.poll()
        for poll in (woken, granted):
            poll.register(self._wake_fd, select.POLLIN)
        granted.register(self._window.fd, select.POLLIN)
        while not self._is_closed:
            with self._changed:
                is_starved = self._is_starved = self._held is not None or self._lost_lines > 0 or self._waiting > 0
                is_lingering = self._is_awake = bool(self._items)
            if is_lingering:
                time.sleep(_LINGER_S)
            else:
                (granted if is_starved else woken).poll()
            with self._changed:
                self._is_awake = True
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake_fd)
                self._catch_up()

    def _catch_up(self) -> None:
        self._window.refresh()
        if self._held is not None and self._window.has_room(self._held.cost_bytes, PROGRESS_BYTES):
            self._release()
        if self._lost_lines:
            self._tell_lost()
        self._flush()
        if self._waiting:
            self._changed.notify_all()
