"""A rank's end of the wire: commands come in, events, reports and logs go out.

Two sockets: one that only the main thread reads, while it waits for work, and one for what goes out, which any thread
of the worker may use, one at a time. Decides nothing; ``rank`` serves the calls and ``worker`` offers this to user
code.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import zmq

from worker_node.distributed import messages, wire
from worker_node.distributed.cancel_flag import CancelFlag
from worker_node.distributed.media import Frame
from worker_node.distributed.messages import Kind, Message

# Messages that may wait in the socket of a rank, and in the parent's for each rank, before the rank blocks.
QUEUED = 200
# The head and the structure of a value; what follows are buffers.
_SMALL_FRAMES = 2


class Link:
    """The connection of one rank to its parent, and the call it works on."""

    def __init__(self, *, rank: int, address: str, token: bytes, flag_fd: int) -> None:
        self.rank = rank
        self.call = 0
        self._token = token
        self._flag = CancelFlag(flag_fd)
        self._wants_events = False
        self._context = zmq.Context()
        self._sending = threading.Lock()
        self._commands = self._context.socket(zmq.DEALER)
        self._commands.setsockopt(zmq.IDENTITY, identity(token, rank))
        self._commands.connect(f"ipc://{address}/commands")
        self._out = self._context.socket(zmq.PUSH)
        self._out.setsockopt(zmq.SNDHWM, QUEUED)
        self._out.connect(f"ipc://{address}/reports")
        self._commands.send_multipart(messages.pack(token, Message(Kind.HELLO, rank)))

    @classmethod
    def from_environment(cls, rank: int, text: str) -> Link:
        """Connect as the parent's environment variable says."""
        said = json.loads(text)
        return cls(rank=rank, address=said["address"], token=bytes.fromhex(said["token"]), flag_fd=said["flag_fd"])

    def receive(self) -> Message:
        """Wait for the next command. Main thread only."""
        while True:
            message = messages.unpack(self._token, receive_frames(self._commands))
            if message is not None:
                return message

    def send(self, kind: Kind, fields: Mapping[str, Any] | None = None, value: Sequence[Frame] = ()) -> None:
        """Send to the parent; blocks while the parent is too busy to take more."""
        frames = messages.pack(self._token, Message(kind, self.rank, self.call, dict(fields or {}), value))
        # An event's buffers may be views of memory that the worker changes next, so they are copied. A result's are
        # not: the next call starts only after the parent has all of it.
        with self._sending:
            self._out.send_multipart(frames, copy=kind is Kind.EVENT)

    def send_log(self, level: int, message: str) -> None:
        """Send a log line, or drop it while the parent is too busy: a log must not slow a worker."""
        frames = messages.pack(
            self._token, Message(Kind.LOG, self.rank, self.call, {"level": level, "message": message})
        )
        try:
            with self._sending:
                self._out.send_multipart(frames, flags=zmq.DONTWAIT)
        except zmq.Again:
            return

    def begin(self, call: int, *, wants_events: bool) -> None:
        """Enter a call: what is sent from now on belongs to it."""
        self.call, self._wants_events = call, wants_events

    def end(self) -> None:
        """Leave the call: events from threads that it left behind go nowhere."""
        self.call, self._wants_events = 0, False

    def emit(self, data: Any, *, image_format: str, as_text: bool, is_error: bool = False) -> None:
        """Send an event of the current call, if anybody listens."""
        if self._wants_events:
            fields = {"image_format": image_format, "as_text": as_text, "is_error": is_error}
            self.send(Kind.EVENT, fields, wire.encode(data))

    def is_cancelled(self) -> bool:
        """Tell whether the parent asked this call to stop; other ranks may see it a moment later."""
        return self.call != 0 and self._flag.names(self.call)

    def close(self) -> None:
        """Flush what was sent and disconnect."""
        self._commands.close(linger=0)
        with self._sending:
            self._out.close(linger=1000)
        self._context.term()


class LinkHandler(logging.Handler):
    """Sends a rank's log records to the parent."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link, self._process = link, os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record. A forked helper of the worker must not touch the socket: its records are not sent."""
        if os.getpid() != self._process:
            return
        try:
            self._link.send_log(record.levelno, self.format(record))
        except Exception:  # noqa: BLE001 - logging's own rule: a record that cannot be written ends nothing
            self.handleError(record)


def receive_frames(socket: zmq.Socket[bytes], flags: int = 0) -> list[Frame]:
    """Receive one message: head and structure as bytes, the buffers of tensors and the like uncopied."""
    frames: list[Frame] = [socket.recv(flags)]
    while socket.getsockopt(zmq.RCVMORE):
        if len(frames) < _SMALL_FRAMES:
            frames.append(socket.recv())
        else:
            frames.append(memoryview(socket.recv(copy=False).buffer))
    return frames


def identity(token: bytes, rank: int) -> bytes:
    """Name a rank's command socket; it may not begin with a zero byte."""
    return b"r" + token + str(rank).encode()
