"""The parent's end of the wire: one private folder, two ipc sockets, every rank of a pool behind them.

Awaits the sockets' descriptors in the event loop and polls nothing. Knows which messages are a pool's own (by its
token) and counts the others; what a message means is the pool's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import shutil
import tempfile
from collections.abc import Callable

import zmq

from worker_node.distributed import messages
from worker_node.distributed.link import QUEUED, identity, receive_frames
from worker_node.distributed.media import Frame
from worker_node.distributed.messages import Message

# The longest path of a unix socket is 107 bytes, of which "/commands" and the folder's own name need the rest.
_LONGEST_PARENT = 80
_SHORT_PARENT = "/tmp"  # noqa: S108 - only the parent of a folder that mkdtemp makes private
# After so many messages in a row the loop gets its turn.
_BATCH = 500


class Hub:
    """Sends to each rank directly and receives from all."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self.token = secrets.token_bytes(16)
        self.dropped = 0
        parent = tempfile.gettempdir()
        # mkdtemp makes it 0700: no other user can connect.
        self.folder = tempfile.mkdtemp(
            prefix="runner-", dir=parent if len(parent) <= _LONGEST_PARENT else _SHORT_PARENT
        )
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._paused = self._hidden = self._closed = False
        self._context = zmq.Context()
        self._commands = self._context.socket(zmq.ROUTER)
        self._commands.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._reports = self._context.socket(zmq.PULL)
        self._reports.setsockopt(zmq.RCVHWM, QUEUED)
        for socket, name in ((self._commands, "commands"), (self._reports, "reports")):
            socket.bind(f"ipc://{self.folder}/{name}")
            # The descriptor is edge-triggered: whoever is called must read until nothing is left.
            self._loop.add_reader(_descriptor(socket), self.drain)

    def send(self, message: Message) -> None:
        """Send a message to the rank that it names. One that is gone gets nothing: its end is told otherwise."""
        if self._closed:
            return
        frames = messages.pack(self.token, message)
        try:
            self._commands.send_multipart([identity(self.token, message.rank), *frames], zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as exc:
            if exc.errno != errno.EHOSTUNREACH:
                raise
        if not self._hidden:
            # Sending may swallow the edge that announced a rank.
            self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Pass on all that has come in."""
        left = _BATCH
        while left and not self._closed and (frames := self._receive()) is not None:
            left -= 1
            message = messages.unpack(self.token, frames)
            if message is None:
                self.dropped += 1
            else:
                self._on_message(message)
        if not left:
            self._loop.call_soon(self.drain)

    def throttle(self, paused: bool) -> None:
        """Stop reading reports, or go on."""
        self._paused = paused
        if not paused and not self._closed:
            self._loop.call_soon(self.drain)

    def hide(self) -> None:
        """Remove the sockets' names; connections that exist stay."""
        self._hidden = True
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Close the sockets; what was not read is dropped."""
        if self._closed:
            return
        self._closed = True
        for socket in (self._commands, self._reports):
            self._loop.remove_reader(_descriptor(socket))
        self._context.destroy(linger=0)
        self.hide()

    def _receive(self) -> list[Frame] | None:
        with contextlib.suppress(zmq.Again):
            if not self._paused:
                return receive_frames(self._reports, zmq.DONTWAIT)
        if self._hidden:
            return None
        with contextlib.suppress(zmq.Again):
            # The first frame is the sender's identity, which says nothing: the token does.
            return receive_frames(self._commands, zmq.DONTWAIT)[1:]
        return None


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))
