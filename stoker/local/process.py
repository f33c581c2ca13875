"""A child process that cannot outlive us: start it, await it, stop it, find what a killed run left behind.

Linux only (pidfd, /proc, parent-death signals). It knows no engine; the launchers and the stack call it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import EngineError

LAUNCHER = Path(__file__).with_name("launch.py")
LOG_LIMIT_BYTES = 10 * 2**20

# The kernel ties a child to the *thread* that started it. This one lives as long as the process, a caller's may not.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stoker-spawner")


@dataclass(frozen=True)
class Command:
    """What to run. ``stop_signal`` is its polite end, ``death_signal`` what the kernel sends it when we are killed."""

    role: str
    argv: Sequence[str | Path]
    cwd: Path
    env: Mapping[str, str]
    log: Path
    stop_signal: signal.Signals
    death_signal: signal.Signals
    user: int | None = None
    pass_fds: tuple[int, ...] = ()


class ProcessExitedError(EngineError):
    """A child ended although it was needed. ``output`` is what it wrote since its start."""

    def __init__(self, process: Process) -> None:
        self.exit_code, self.output = process.exit_code, process.output()
        lines = self.output.strip().splitlines()
        if len(lines) > 1 and lines[-2].startswith("error: ") and lines[-1].startswith("hint: "):
            super().__init__(f"{process.role}: {lines[-2][7:]}", hint=lines[-1][6:])  # it knew what was wrong
            return
        last = " | ".join(lines[-3:])
        super().__init__(
            f"{process.role} ended with exit code {self.exit_code}: {last}",
            hint=f"Its whole output is in {process.log}.",
        )


class Process:
    """One running child. Made by ``spawn``."""

    def __init__(self, popen: subprocess.Popen[bytes], command: Command, log_offset: int) -> None:
        self.role, self.log, self.pid = command.role, command.log, popen.pid
        self._popen, self._stop_signal, self._log_offset = popen, command.stop_signal, log_offset
        self._pidfd = os.pidfd_open(popen.pid)

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def fileno(self) -> int:
        """A descriptor that is readable once the process has ended."""
        return self._pidfd

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within ``timeout_s``."""
        return has_ended(self._pidfd, timeout_s) and self._popen.poll() is not None

    def output(self) -> str:
        """What it wrote to its log since its start, the last 16 kB of it."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_offset, size - 16384))
            return file.read().decode(errors="replace")

    def wait_ready(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Return once ``is_ready`` says so. Between two looks it waits on the process, whose end is seen at once.

        Raises:
            ProcessExitedError: it ended first.
            EngineError: it is not ready within ``timeout_s``.
        """
        deadline, pause_s = time.monotonic() + timeout_s, 0.01
        while not is_ready():
            if self.wait(pause_s):
                raise ProcessExitedError(self)
            if time.monotonic() > deadline:
                raise EngineError(
                    f"{self.role} was not ready within {timeout_s:.0f} s", hint=f"Its output is in {self.log}."
                )
            pause_s = min(pause_s * 1.3, 0.25)

    def stop(self, *, grace_s: float = 20) -> None:
        """End it politely, and after ``grace_s`` by force. Stopping what has ended does nothing."""
        if self._popen.poll() is None:
            self._popen.send_signal(self._stop_signal)
            if not self.wait(grace_s):
                self.kill()

    def kill(self) -> None:
        """End it at once, with its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


def spawn(command: Command) -> Process:
    """Start ``command`` in a session of its own (a Ctrl-C of the terminal is ours to pass on), logging to its file."""
    return _spawner.submit(_spawn, command).result()


def _spawn(command: Command) -> Process:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    if command.log.exists() and command.log.stat().st_size > LOG_LIMIT_BYTES:
        command.log.replace(command.log.with_suffix(".log.1"))
    launcher: list[str | Path] = [
        sys.executable,
        "-I",
        "-S",
        LAUNCHER,
        str(int(command.death_signal)),
        str(os.getpid()),
    ]
    with command.log.open("ab") as log:
        log_offset = log.tell()  # before it runs: the child writes through the same file position
        popen = subprocess.Popen(
            [*launcher, "-" if command.user is None else str(command.user), *command.argv],
            cwd=command.cwd,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=command.pass_fds,
        )
        return Process(popen, command, log_offset)


def stop_leftovers(folder: Path, program: str, stop_signal: signal.Signals, *, grace_s: float = 20) -> None:
    """End every ``program`` that still works in ``folder``: its starter was killed, and data are for one process only.

    A server's working directory is its data folder, so a process id that has another owner now is never hit.
    """
    found = list(_working_in(folder, program))
    try:
        # All of them before the first wait: a server's own children end when it tells them to.
        for pid, _ in found:
            with suppress(ProcessLookupError):
                os.kill(pid, stop_signal)
        for pid, pidfd in found:
            if not has_ended(pidfd, grace_s):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                has_ended(pidfd, grace_s)
    finally:
        for _, pidfd in found:
            os.close(pidfd)


def _working_in(folder: Path, program: str) -> Iterator[tuple[int, int]]:
    place = str(folder.resolve())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        pidfd = None
        try:
            pidfd = os.pidfd_open(int(entry.name))  # before the look: what is seen is then what is held
            name = (entry / "comm").read_text().strip()
            if name == program and os.readlink(entry / "cwd") == place:  # noqa: PTH115 (a deleted folder is no Path)
                yield int(entry.name), pidfd
                pidfd = None
        except OSError:  # ended meanwhile, or another user's
            continue
        finally:
            if pidfd is not None:
                os.close(pidfd)


def has_ended(pidfd: int, timeout_s: float) -> bool:
    """Whether the process of ``pidfd`` ends within ``timeout_s``, whoever its parent is."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))
