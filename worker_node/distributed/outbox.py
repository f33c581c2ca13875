"""The outbox: what a rank says to its parent, sent in batches and never faster than the window allows.

The first of a burst goes at once; what follows shortly after goes together, at the latest a millisecond later. Without
room in the window an output waits, progress is replaced by newer progress, and log lines are dropped and counted.
Reports go last, after all that was said before them. Any thread of the rank may use it, at any moment: a destructor or
a signal handler may speak in the middle of another's word, which is then finished first.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from worker_node.distributed.batch import Item, Line, Lost
from worker_node.distributed.lines import Lines
from worker_node.distributed.media import Frame
from worker_node.distributed.shelf import staged_in
from worker_node.distributed.window import LOG_BYTES, OUTPUT_BYTES, PROGRESS_BYTES, SendWindow

_LINGER_S = 0.001
_BATCH_ITEMS, _BATCH_BYTES = 128, 2**16

Send = Callable[[dict[str, Any], Sequence[Frame]], None]


class Outbox:
    """One rank's. ``send`` puts a batch on the wire: its fields and the buffers beside them, which it copies."""

    def __init__(self, window: SendWindow, send: Send) -> None:
        self.call = 0
        self._window, self._send = window, send
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._owner: int | None = None
        # What was said in the middle of something else.
        self._asides: collections.deque[Item] = collections.deque()
        self._lines = Lines()
        self._items: list[list[Any]] = []
        self._buffers: list[Frame] = []
        self._size_bytes = 0
        self._sent_at = 0.0
        self._held: Item | None = None
        self._waiting = 0
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_awake = self._is_starved = self._is_closed = False
        self._thread: threading.Thread | None = None

    def output(self, item: Item, call: int) -> None:
        """Send an output or an error of a call; wait while the caller is too far behind. Nothing once it has ended."""
        if self._is_aside(item):
            return
        cost = item.cost_bytes
        with self._held_lock():
            if call == self.call:
                self._release()
            while call == self.call and not self._is_closed and not self._has_room(cost, OUTPUT_BYTES):
                self._flush()
                self._wait()
            if call == self.call:
                self._add(item, cost, item.value[1:])

    def progress(self, item: Item, call: int) -> None:
        """Send progress of a call, or keep it until there is room: the newest replaces what was kept."""
        if self._is_aside(item):
            return
        cost = item.cost_bytes
        with self._held_lock():
            if call != self.call:
                return
            if self._held is None and self._has_room(cost, PROGRESS_BYTES):
                self._add(item, cost, item.value[1:])
                return
            # Its buffers may be views of memory that the worker changes next.
            kept = [frame if staged_in(frame) is not None else bytes(frame) for frame in item.value]
            self._held = item._replace(value=kept)
            self._wake()

    def line(self, line: Line) -> None:
        """Send a log line, or drop it."""
        self._lines.add(line)
        self._send_lines_if_free()

    def enter(self, call: int) -> None:
        """Begin a call: only what belongs to it is sent from now on."""
        with self._held_lock():
            self._flush()
            self.call = call

    def leave(self, report: Callable[[], None]) -> None:
        """Send all that was said so far and then a report, which ends the call: who still waits waits in vain."""
        with self._held_lock():
            self._release()
            self._take_lines()
            self._flush()
            report()
            self.call = 0
            self._room.notify_all()

    def close(self, disconnect: Callable[[], None]) -> None:
        """Send what was said, and nothing any more."""
        with self._held_lock():
            self._take_lines()
            self._flush()
            self._is_closed = True
            self._room.notify_all()
            disconnect()
        os.eventfd_write(self._wake_fd, 1)
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def _held_lock(self) -> Iterator[None]:
        self._lock.acquire()
        self._owner = threading.get_ident()
        try:
            yield
            while self._asides:
                aside = self._asides.popleft()
                self._add(aside, aside.cost_bytes, aside.value[1:])
            self._take_lines()
        finally:
            self._owner = None
            self._lock.release()
        self._send_lines_if_free()

    def _send_lines_if_free(self) -> None:
        """Send lines unless somebody is at it, who looks after them before and after going."""
        while self._lines and self._lock.acquire(blocking=False):
            self._owner = threading.get_ident()
            try:
                self._take_lines()
            finally:
                self._owner = None
                self._lock.release()

    def _is_aside(self, item: Item) -> bool:
        """Put by what this thread says in the middle of its own word."""
        if self._owner != threading.get_ident():
            return False
        self._asides.append(item)
        return True

    def _wait(self) -> None:
        self._waiting += 1
        self._wake()
        self._owner = None
        try:
            self._room.wait()
        finally:
            self._owner = threading.get_ident()
            self._waiting -= 1

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

    def _take_lines(self) -> None:
        for line in self._lines.take(lambda cost_bytes: self._has_room(cost_bytes, LOG_BYTES)):
            self._add(line, line.cost_bytes)
        if self._lines.lost:
            self._wake()

    def _add(self, item: Item | Line | Lost, cost_bytes: int, buffers: Sequence[Frame] = ()) -> None:
        if self._is_closed:
            return
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
        if self._thread is None:
            thread = threading.Thread(target=self._look_after, name="rank-outbox", daemon=True)
            thread.start()
            self._thread = thread
        self._is_awake = True
        os.eventfd_write(self._wake_fd, 1)

    def _look_after(self) -> None:
        woken, granted = select.poll(), select.poll()
        for poll in (woken, granted):
            poll.register(self._wake_fd, select.POLLIN)
        granted.register(self._window.fd, select.POLLIN)
        while not self._is_closed:
            with self._held_lock():
                is_starved = self._is_starved = self._held is not None or self._lines.lost > 0 or self._waiting > 0
                is_lingering = self._is_awake = bool(self._items)
            if is_lingering:
                time.sleep(_LINGER_S)
            else:
                (granted if is_starved else woken).poll()
            try:
                with self._held_lock():
                    self._is_awake = True
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake_fd)
                    self._catch_up()
            except Exception:  # noqa: BLE001 - without this thread whoever waits for room would wait for ever
                traceback.print_exc(file=sys.stderr)

    def _catch_up(self) -> None:
        self._window.refresh()
        if self._held is not None and self._window.has_room(self._held.cost_bytes, PROGRESS_BYTES):
            self._release()
        self._take_lines()
        self._flush()
        if self._waiting:
            self._room.notify_all()
