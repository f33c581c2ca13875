"""One of Stoker's own processes as a child: the API, the control loop, a node, or anything run by ``python -m``.

It says by a line in a pipe that it is ready (``stoker.ready``), and is killed by the kernel if we are. What parts do
is not known here. ``stoker.local.stack`` calls it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker import ready
from stoker.errors import EngineError
from stoker.local.process import Command, Process, ProcessExitedError, spawn

READY_S = 120.0
GRACE_S = 10.0


@dataclass(frozen=True)
class Part:
    """How to start a part: its name in logs and reports, the module and its environment."""

    role: str
    module: str
    log_dir: Path
    environ: Mapping[str, str]
    arguments: Sequence[str] = ()

    def start(self) -> tuple[Process, int]:
        """Start it, and the pipe through which it will say that it is ready."""
        reader, writer = os.pipe()
        try:
            return self._spawn({ready.VARIABLE: str(writer)}, (writer,)), reader
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)

    def start_again(self) -> Process:
        """Start it where nobody waits for it."""
        return self._spawn({}, ())

    def _spawn(self, extra: Mapping[str, str], pass_fds: tuple[int, ...]) -> Process:
        return spawn(
            Command(
                role=self.role,
                argv=[sys.executable, "-m", self.module, *self.arguments],
                cwd=Path.cwd(),  # import strings of apps are looked up from here
                env={**self.environ, **extra},
                log=self.log_dir / f"{self.role}.log",
                stop_signal=signal.SIGTERM,
                death_signal=signal.SIGKILL,
                pass_fds=pass_fds,
            )
        )


def wait_ready(process: Process, reader: int, *, timeout_s: float = READY_S) -> Mapping[str, Any]:
    """What the part announces about itself.

    Raises:
        ProcessExitedError: it ended first.
        EngineError: it said nothing within ``timeout_s``.
    """
    line = read_line(reader, timeout_s)
    if line is None:
        raise EngineError(
            f"{process.role} was not ready within {timeout_s:.0f} s", hint=f"Its output is in {process.log}."
        )
    if not line:
        process.wait(GRACE_S)
        raise ProcessExitedError(process)
    facts: Mapping[str, Any] = json.loads(line)
    return facts


def read_line(fd: int, timeout_s: float) -> bytes | None:
    """The line that comes through the pipe ``fd``, closed then; empty if its writers ended, None if time is up."""
    deadline, line = time.monotonic() + timeout_s, b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    try:
        while not line.endswith(b"\n"):
            if not poller.poll(max(deadline - time.monotonic(), 0) * 1000):
                return None
            piece = os.read(fd, 65536)
            if not piece:
                return b""
            line += piece
        return line
    finally:
        os.close(fd)


def run(part: Part) -> None:
    """Run a part that does one thing and ends, such as the migrations.

    Raises:
        EngineError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", part.module, *part.arguments],
        env=dict(part.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    part.log_dir.mkdir(parents=True, exist_ok=True)
    log = part.log_dir / f"{part.role}.log"
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        last = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise EngineError(f"{part.role} failed: {last}", hint=f"Its whole output is in {log}.")
