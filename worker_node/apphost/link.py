"""Link: the app host's end of the socket to its supervisor.

A thread of its own reads, so that a blocked event loop still learns that the supervisor is gone; sending is for any
thread. Standard output and error never come here.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading

from worker_node.apphost.protocol import Message, ProtocolViolationError, Unpacker, pack

_CHUNK_BYTES = 2**18


class Link:
    """Messages from and to the supervisor. When it goes, this process ends, and its ranks with it."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)
        # A fork of the app must neither speak for it nor keep the socket open.
        os.register_at_fork(after_in_child=self._socket.close)
        self._loop, self._sending = loop, threading.Lock()
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        threading.Thread(target=self._read, name="supervisor-link", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message; from any thread."""
        frame = pack(message)
        try:
            with self._sending:
                self._socket.sendall(frame)
        except OSError:
            os._exit(1)

    def _read(self) -> None:
        unpacker = Unpacker()
        try:
            while data := self._socket.recv(_CHUNK_BYTES):
                for message in unpacker.feed(data):
                    self._loop.call_soon_threadsafe(self.inbox.put_nowait, message)
        except (OSError, ProtocolViolationError, RuntimeError):
            # A socket that broke and a loop that was closed mean the same as its end: nobody is left to serve.
            os._exit(1)
        os._exit(1)
