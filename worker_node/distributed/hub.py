"""The parent's end of the wire: two ipc sockets, every rank of a pool behind them.

Awaits the sockets' descriptors in the event loop and polls nothing. The sockets have names only while they are made, in
a folder of the user's own: ranks inherit descriptors of them, so nobody else can connect and no file is left behind,
whoever is killed. Knows which messages are a pool's own (by its token) and counts the others; what a message means is
the pool's business.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable

import zmq

from worker_node.distributed import messages
from worker_node.distributed.link import identity, receive_frames, send_frames
from worker_node.distributed.media import Frame
from worker_node.distributed.messages import Message
from worker_node.distributed.threads import Threads

# The longest path of a unix socket is 107 bytes, of which "/commands" and the folder's own name need the rest.
_LONGEST_PARENT = 80
_SHORT_PARENT = "/tmp"  # noqa: S108 - only the parent of a folder that mkdtemp makes private
# After so many messages in a row the loop gets its turn.
_BATCH = 500


class Hub:
    """Sends to each rank directly and receives from all. Ranks connect to ``commands_fd`` and ``reports_fd``."""

    def __init__(self, on_message: Callable[[Message], None], threads: Threads) -> None:
        self.token = secrets.token_bytes(16)
        self.dropped = 0
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._are_all_here = self._closed = False
        self._fds: list[int] = []
        self._threads, self._sockets = threads, list[zmq.Socket[bytes]]()
        context = threads.enter()
        try:
            self._sockets.append(context.socket(zmq.ROUTER))
            self._sockets.append(context.socket(zmq.PULL))
            self._commands, self._reports = self._sockets
            self._commands.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._commands.setsockopt(zmq.SNDHWM, 0)
            # What ranks may send ahead is bounded by their windows, in bytes.
            self._reports.setsockopt(zmq.RCVHWM, 0)
            self.commands_fd, self.reports_fd = self._bind()
            for socket in self._sockets:
                # The descriptor is edge-triggered: whoever is called must read until nothing is left.
                self._loop.add_reader(_descriptor(socket), self.drain)
        except BaseException:
            self._close_sockets()
            raise

    def _bind(self) -> tuple[int, int]:
        parent = tempfile.gettempdir()
        # mkdtemp makes it 0700: no other user can connect while the names are there.
        folder = tempfile.mkdtemp(prefix="runner-", dir=parent if len(parent) <= _LONGEST_PARENT else _SHORT_PARENT)
        try:
            for socket, name in ((self._commands, "commands"), (self._reports, "reports")):
                socket.bind(f"ipc://{folder}/{name}")
                # Opened without connecting to it: a way to the socket that outlives its name.
                self._fds.append(os.open(f"{folder}/{name}", os.O_PATH | os.O_CLOEXEC))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self._fds[0], self._fds[1]

    def send(self, message: Message, ranks: Iterable[int]) -> None:
        """Send a message to each of some ranks. One that is gone gets nothing: its end is told otherwise."""
        if self._closed:
            return
        frames = messages.pack(self.token, message)
        for rank in ranks:
            try:
                # An unknown address is refused at this first frame.
                self._commands.send(identity(self.token, rank), zmq.DONTWAIT | zmq.SNDMORE)
                send_frames(self._commands, frames, zmq.DONTWAIT)
            except zmq.ZMQError as exc:
                if exc.errno != errno.EHOSTUNREACH:
                    raise
        if not self._are_all_here:
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

    def all_here(self) -> None:
        """Let nobody connect any more; connections that exist stay."""
        self._are_all_here = True
        while self._fds:
            os.close(self._fds.pop())

    def close(self) -> None:
        """Close the sockets; what was not read is dropped."""
        if self._closed:
            return
        self._closed = True
        for socket in self._sockets:
            if not self._loop.is_closed():
                self._loop.remove_reader(_descriptor(socket))
        self._close_sockets()

    def _close_sockets(self) -> None:
        for socket in self._sockets:
            socket.close(linger=0)
        self.all_here()
        self._threads.leave()

    def _receive(self) -> list[Frame] | None:
        # Asked first, since a refusal costs more; asking also arms the descriptor again.
        if _has_message(self._reports):
            return receive_frames(self._reports, zmq.DONTWAIT)
        if not self._are_all_here and _has_message(self._commands):
            # The first frame is the sender's identity, which says nothing: the token does.
            return receive_frames(self._commands, zmq.DONTWAIT)[1:]
        return None


def _has_message(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))
