"""HostProcess: the process of one app host, as the supervisor sees it: messages, output, end, kill.

Everything arrives as a callback in the event loop and nothing here waits for the child, so whatever it does or leaves
undone, the supervisor goes on. ``host`` decides what an end means.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import cast

from stoker import log
from worker_node.apphost.protocol import Message, ProtocolViolationError, Unpacker, pack
from worker_node.host_values import without_credentials
from worker_node.sessions import end_session

logger = log.get(__name__)

OUTPUT_BYTES_A_SECOND = 2**18
"""An app that prints more than this waits for its own print, and does not take the node's time."""
LAST_WORDS_S = 0.5
LONGEST_LINE = 4000
KEPT_LINES = 30
RANK = re.compile(r"(?:[A-Z]+ [\w.]+: )?\[rank (\d+)\] ")
"""How the app host marks what a rank has said."""
_CHUNK_BYTES = 2**16


class HostProcess(asyncio.Protocol):
    """One child. ``on_end`` is called once, with the exit code (negative: a signal), after its last message.

    ``names`` says whose work a line is that the child prints now.
    """

    def __init__(
        self,
        name: str,
        env: Mapping[str, str],
        on_message: Callable[[Message], None],
        on_end: Callable[[int], None],
        names: Callable[[], Mapping[str, object]],
    ) -> None:
        self._names = names
        self.last_lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._name, self._on_message, self._on_end = name, on_message, on_end
        self._loop = asyncio.get_running_loop()
        self._unpacker = Unpacker()
        self._transport: asyncio.WriteTransport | None = None
        self._to_send: list[bytes] = []
        self._partial = b""
        self._spent_bytes = 0
        self._disconnected, self.ended = asyncio.Event(), asyncio.Event()
        mine, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(mine.close)
            # The kernel ends the child with the thread that starts it: the event loop's, which outlives its callbacks.
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "worker_node.apphost", str(theirs.fileno()), str(os.getpid())],
                env={**without_credentials(env), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                # A session of its own: an interrupt typed at the node is the node's to act on.
                start_new_session=True,
            )
            self.pid = self._popen.pid
            undo.callback(_end, self._popen)
            self._pidfd = os.pidfd_open(self.pid)
            undo.pop_all()
        self._loop.add_reader(self._pidfd, self._reap)
        self._output = self._popen.stdout.fileno() if self._popen.stdout else -1
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._read_output)
        self._connecting = self._loop.create_task(self._connect(mine))

    async def _connect(self, mine: socket.socket) -> None:
        await self._loop.create_connection(lambda: self, sock=mine)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what was to be sent before."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by its class
        self._transport.writelines(self._to_send)

    def data_received(self, data: bytes) -> None:
        """Read messages; a child that sends anything else is ended."""
        try:
            for message in self._unpacker.feed(data):
                self._on_message(message)
        except ProtocolViolationError as error:
            logger.warning("app_host_spoke_nonsense", app=self._name, pid=self.pid, problem=str(error))
            self.kill()
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        """End a child that closed its socket: it cannot be reached any more."""
        self._disconnected.set()
        self.kill()

    def send(self, message: Message) -> None:
        """Send a message; never waits."""
        frame = pack(message)
        if self._transport is None:
            self._to_send.append(frame)
        elif not self._transport.is_closing():
            self._transport.write(frame)

    def kill(self) -> None:
        """Send SIGKILL to the child and to what it started in its session; the kernel ends its ranks with it."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        # Helpers of the app and of its ranks end with it. Before the wait: until then its number cannot be another's.
        end_session(self.pid)
        exit_code = self._popen.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._loop.create_task(self._finish(exit_code))

    async def _finish(self, exit_code: int) -> None:
        await self._connecting
        # What was sent before the end is read to its end; a fork that lives on elsewhere may hold the socket open.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._disconnected.wait(), LAST_WORDS_S)
        self._spent_bytes = 0
        self._read_output()
        self._close_output()
        self.ended.set()
        if self._transport is not None:
            self._transport.abort()
        self._on_end(exit_code)

    def _read_output(self) -> None:
        if self._output < 0:
            return
        try:
            chunk = os.read(self._output, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._close_output()
            return
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > LONGEST_LINE:
            lines, self._partial = [*lines, self._partial], b""
        for line in lines:
            self._line(line)
        self._spent_bytes += len(chunk)
        if self._spent_bytes >= OUTPUT_BYTES_A_SECOND:
            self._loop.remove_reader(self._output)
            self._loop.call_later(1.0, self._resume_output)

    def _resume_output(self) -> None:
        self._spent_bytes = 0
        if self._output >= 0:
            self._loop.add_reader(self._output, self._read_output)

    def _close_output(self) -> None:
        if self._output < 0:
            return
        self._loop.remove_reader(self._output)
        self._output = -1
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        if self._partial:
            self._line(self._partial)

    def _line(self, line: bytes) -> None:
        text = line[:LONGEST_LINE].decode(errors="replace").rstrip()
        if text:
            self.last_lines.append(text)
            rank = {"rank": int(found[1])} if (found := RANK.match(text)) else {}
            logger.info("app_output", app=self._name, pid=self.pid, line=text, **rank, **self._names())


def _end(popen: subprocess.Popen[bytes]) -> None:
    """End a child that cannot be watched."""
    with popen:
        popen.kill()
