"""A rank's end of the wire: commands come in, events, reports and logs go out.

Two sockets: one that only the main thread reads, while it waits for work, and one for what goes out, which any thread
of the worker may use. Decides nothing; ``rank`` serves the calls and ``worker`` offers this to user code.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, cast

import zmq

from worker_node.distributed import messages, wire
from worker_node.distributed.batch import Item, Line, Sort
from worker_node.distributed.cancel_flag import CancelFlag
from worker_node.distributed.lifeline import hold
from worker_node.distributed.media import Frame
from worker_node.distributed.messages import Kind, Message
from worker_node.distributed.outbox import Outbox
from worker_node.distributed.segments import Segments
from worker_node.distributed.shelf import KEPT_S, Shelf
from worker_node.distributed.window import SendWindow

# The call for which a task works. Tasks and threads that the worker's own loop started carry it on past the call's end.
_working_for: contextvars.ContextVar[int] = contextvars.ContextVar("working_for")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a rank inherits: its ends of all that it shares with the parent, as descriptors, and who is who."""

    commands_fd: int
    reports_fd: int
    window_fd: int
    segments_fd: int
    lifeline_fd: int
    flag_fd: int
    token: str
    parent_pid: int

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors to hand on."""
        return self.commands_fd, self.reports_fd, self.window_fd, self.segments_fd, self.lifeline_fd, self.flag_fd

    def to_text(self) -> str:
        """Put it into words that fit an environment variable."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what ``to_text`` wrote."""
        return cls(**json.loads(text))


class Link:
    """The connection of one rank to its parent, and the call it works on."""

    def __init__(self, rank: int, wiring: Wiring) -> None:
        for fd in wiring.fds:
            # Helpers that the worker starts have no business here.
            os.set_inheritable(fd, False)
        hold(wiring.lifeline_fd)
        self.rank = rank
        self._process = os.getpid()
        self._token = bytes.fromhex(wiring.token)
        self._flag = CancelFlag(wiring.flag_fd)
        self._wants_events = False
        self._context = zmq.Context()
        self._commands = self._context.socket(zmq.DEALER)
        self._commands.setsockopt(zmq.IDENTITY, identity(self._token, rank))
        self._commands.connect(f"ipc:///proc/self/fd/{wiring.commands_fd}")
        self._out = self._context.socket(zmq.PUSH)
        # The window bounds what is under way, in bytes; a bound of messages would hold up reports, too.
        self._out.setsockopt(zmq.SNDHWM, 0)
        self._out.connect(f"ipc:///proc/self/fd/{wiring.reports_fd}")
        self._outbox = Outbox(SendWindow(wiring.window_fd), self._send_batch)
        self._segments, self._shelf = Segments.inherited(wiring.segments_fd), Shelf()
        self._commands.send_multipart(messages.pack(self._token, Message(Kind.HELLO, rank)))

    @property
    def call(self) -> int:
        """The call that this rank works on, 0 between calls."""
        return self._outbox.call

    def receive(self) -> Message:
        """Wait for the next command. Main thread only."""
        while True:
            self._shelf.tidy()
            if self._shelf and not self._commands.poll(int(KEPT_S * 1000)):
                continue
            message = messages.unpack(self._token, receive_frames(self._commands))
            if message is not None:
                return replace(message, value=self._segments.take(message.value, message.given))

    def encoded(self, value: Any) -> list[Frame]:
        """Turn a value into frames, and put into shared memory what is large."""
        return self._shelf.stage(wire.encode(value, self._shelf))

    def report(self, kind: Kind, fields: Mapping[str, Any] | None = None, value: Sequence[Frame] = ()) -> None:
        """Tell the parent how something ended, after all that was said before. A call ends with it: events from
        threads and tasks that it left behind go nowhere.
        """

        def send() -> None:
            left, given = self._segments.give(value)
            # Uncopied: the next call starts only after the parent has all of it.
            message = Message(kind, self.rank, self.call, dict(fields or {}), left, given)
            send_frames(self._out, messages.pack(self._token, message))
            self._wants_events = False

        self._outbox.leave(send)

    def send_log(self, level: int, text: str) -> None:
        """Send a log line."""
        self._outbox.line(Line(int(level), text))

    def begin(self, call: int, *, wants_events: bool) -> None:
        """Enter a call: what is sent from now on belongs to it."""
        self._outbox.enter(call)
        self._wants_events = wants_events
        _working_for.set(call)

    def emit(self, sort: Sort, data: Any, *, image_format: str = "jpeg", as_text: bool = False) -> None:
        """Send an event of the current call, if anybody listens."""
        call = _working_for.get(self.call)
        # A forked copy of this process has the sockets, too, and must leave them alone.
        if not self._wants_events or call != self.call or os.getpid() != self._process:
            return
        item = Item(sort, self.encoded(data), image_format, as_text)
        (self._outbox.progress if sort is Sort.PROGRESS else self._outbox.output)(item, call)

    def is_cancelled(self) -> bool:
        """Tell whether the parent asked this call to stop; other ranks may see it a moment later."""
        return self.call != 0 and self._flag.names(self.call)

    def close(self) -> None:
        """Flush what was sent and disconnect."""
        self._commands.close(linger=0)
        self._outbox.close(lambda: self._out.close(linger=1000))
        self._context.term()

    def _send_batch(self, fields: dict[str, Any], buffers: Sequence[Frame]) -> None:
        left, given = self._segments.give(buffers)
        message = Message(Kind.BATCH, self.rank, self.call, fields, left, given)
        self._out.send_multipart(messages.pack(self._token, message))


class _NoLock:
    """Stands where logging wants a lock."""

    def acquire(self) -> None:
        """Go on."""

    def release(self) -> None:
        """Go on."""

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        """Go on."""


class LinkHandler(logging.Handler):
    """Sends a rank's log records to the parent."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link, self._process = link, os.getpid()

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Have no lock: the outbox needs none, and one that a destructor's line waits for may never be free."""
        self.lock = cast("Any", _NoLock())

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record. A forked helper of the worker must not touch the socket: its records are not sent."""
        if os.getpid() != self._process:
            return
        try:
            self._link.send_log(record.levelno, self.format(record))
        except Exception:  # noqa: BLE001 - logging's own rule: a record that cannot be written ends nothing
            self.handleError(record)


def receive_frames(socket: zmq.Socket[bytes], flags: int = 0) -> list[Frame]:
    """Receive one message: the head as bytes, what follows uncopied."""
    frames: list[Frame] = [socket.recv(flags)]
    while socket.getsockopt(zmq.RCVMORE):
        frames.append(memoryview(socket.recv(copy=False).buffer))
    return frames


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Frame], flags: int = 0) -> None:
    """Send one message: the head copied, which is quicker, what follows not."""
    head, *rest = frames
    socket.send(head, flags | zmq.SNDMORE if rest else flags)
    if rest:
        socket.send_multipart(rest, flags, copy=False)


def identity(token: bytes, rank: int) -> bytes:
    """Name a rank's command socket; it may not begin with a zero byte."""
    return b"r" + token + str(rank).encode()
