"""A rank's process as its parent sees it: spawn, output lines, end, kill.

Watches through file descriptors in the event loop: the end of a process and each line of its output arrive as
callbacks, nothing is polled. Knows nothing of messages; ``pool`` holds one of these for each rank.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from worker_node.distributed.lifeline import exit_code_of

_KEPT_LINES = 20
_CHUNK_BYTES = 65536
_OUTPUT_BYTES_A_SECOND = 2**18
"""A rank that prints more on one stream waits for its own print, and does not take its parent's time."""


class RankProcess:
    """One spawned rank. ``ending`` resolves when its end is known, ``ended`` when all of it is gone: to the exit code,
    negative for a signal.
    """

    def __init__(
        self, rank: int, popen: subprocess.Popen[bytes], lifeline_fd: int, on_line: Callable[[int, str, str], None]
    ) -> None:
        self.rank, self.pid = rank, popen.pid
        self.last_output: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._loop = asyncio.get_running_loop()
        self.ending: asyncio.Future[int] = self._loop.create_future()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._lifeline_fd: int | None = lifeline_fd
        self._popen, self._on_line = popen, on_line
        self._pidfd = os.pidfd_open(popen.pid)
        self._partial: dict[str, bytes] = {}
        self._spent_bytes: dict[str, int] = {}
        self._loop.add_reader(self._pidfd, self._reap)
        self._loop.add_reader(lifeline_fd, self._on_lifeline)
        for name, pipe in self._pipes():
            os.set_blocking(pipe.fileno(), False)
            self._loop.add_reader(pipe.fileno(), self._read, name, pipe)

    @staticmethod
    def spawn(
        rank: int, *, env: Mapping[str, str], cwd: str | None, pass_fds: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        """Start the interpreter of a rank, from a thread that lives on: the kernel ends the rank with that thread."""
        return subprocess.Popen(
            [sys.executable, "-u", "-P", "-m", "worker_node.distributed.rank", str(rank)],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(pass_fds),
            # A group of its own: an interrupt typed at the parent is the parent's to act on, and a kill reaches helpers
            # of the rank. In the parent's session: who ends that after the parent was killed finds the helpers, too.
            process_group=0,
        )

    def kill(self) -> None:
        """Send SIGKILL to the rank and to what it started; its end is seen as any other end."""
        if not self.ended.done():
            self._kill_group()

    def reap_now(self, timeout_s: float) -> None:
        """Wait for the end without the event loop; for callers that cannot await."""
        if not self.ended.done():
            self._popen.wait(timeout_s)
            self._reap()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _on_lifeline(self) -> None:
        self._drop_lifeline()
        exit_code = exit_code_of(self.pid)
        if exit_code is None or self.ending.done():
            return
        for name, pipe in self._pipes():
            self._read(name, pipe)
        self.ending.set_result(exit_code)

    def _drop_lifeline(self) -> None:
        """Listen no more; the descriptor is its channel's."""
        if self._lifeline_fd is not None:
            self._loop.remove_reader(self._lifeline_fd)
            self._lifeline_fd = None

    def _reap(self) -> None:
        # What the rank started ends with it. Before the wait: until then its number cannot be another's.
        self._kill_group()
        exit_code = self._popen.wait()
        if self._loop.is_closed():
            return
        self._drop_lifeline()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        for name, pipe in self._pipes():
            self._read(name, pipe)
            self._close(name, pipe)
        if not self.ending.done():
            self.ending.set_result(exit_code)
        if not self.ended.done():
            self.ended.set_result(exit_code)

    def _pipes(self) -> list[tuple[str, IO[bytes]]]:
        pairs = (("stdout", self._popen.stdout), ("stderr", self._popen.stderr))
        return [(name, pipe) for name, pipe in pairs if pipe is not None and not pipe.closed]

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        try:
            chunk = os.read(pipe.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._close(name, pipe)
            return
        *lines, rest = (self._partial.get(name, b"") + chunk).split(b"\n")
        for line in lines:
            self._line(name, line)
        self._partial[name] = _shown(rest)[-_CHUNK_BYTES:]
        self._spent_bytes[name] = self._spent_bytes.get(name, 0) + len(chunk)
        if self._spent_bytes[name] >= _OUTPUT_BYTES_A_SECOND and not self.ended.done():
            self._loop.remove_reader(pipe.fileno())
            self._loop.call_later(1.0, self._resume, name, pipe)

    def _resume(self, name: str, pipe: IO[bytes]) -> None:
        self._spent_bytes[name] = 0
        if not pipe.closed:
            self._loop.add_reader(pipe.fileno(), self._read, name, pipe)

    def _close(self, name: str, pipe: IO[bytes]) -> None:
        if pipe.closed:
            return
        self._loop.remove_reader(pipe.fileno())
        pipe.close()
        if rest := self._partial.pop(name, b""):
            self._line(name, rest)

    def _line(self, name: str, line: bytes) -> None:
        text = _shown(line).decode(errors="replace")
        self.last_output.append(text)
        self._on_line(self.rank, name, text)


def _shown(line: bytes) -> bytes:
    """Return what a terminal would show: a progress bar draws over itself with carriage returns."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]
