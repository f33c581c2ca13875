"""A process that ``queues`` starts beside the stack: a system's caller, which answers orders, or a peer's worker."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.peers.process import ROOT, PeerFailed, environment

LIMIT_S = 400.0
STOP_S = 20.0


class Caller:
    """Orders for one system's caller."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name, self._process = name, process

    def ask(self, do: str, **order: Any) -> Any:
        """Give an order and wait for the answer.

        Raises:
            PeerFailed: with what it said last.
        """
        orders, answers = self._process.stdin, self._process.stdout
        if orders is None or answers is None:
            raise ValueError("a caller needs pipes")
        print(json.dumps({"do": do, **order}), file=orders, flush=True)
        if not select.select([answers], [], [], LIMIT_S)[0]:
            raise PeerFailed(f"{self.name} did not answer to {do} within {LIMIT_S:.0f} s")
        line = answers.readline()
        if not line:
            raise PeerFailed(f"{self.name} ended in {do}")
        said = json.loads(line)
        if "error" in said:
            raise PeerFailed(f"{self.name} failed in {do}: {said['error']}")
        return said["value"]


@contextmanager
def caller(name: str, python: str, env: Mapping[str, str]) -> Iterator[Caller]:
    """Run the caller of system ``name`` and let it connect."""
    with process([python, "-m", "benchmarks.queue_peers.serve", name], python, env, piped=True) as (started, output):
        asked = Caller(name, started)
        try:
            asked.ask("open")
            yield asked
        except PeerFailed as exc:
            output.seek(0)
            raise PeerFailed(f"{exc}\n{output.read()[-2000:]}") from None


@contextmanager
def process(
    command: Sequence[str], python: str, env: Mapping[str, str], *, piped: bool = False
) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Run ``command`` while the context lasts, and end it with all that it started. Its output is kept to be shown."""
    pipe = subprocess.PIPE if piped else subprocess.DEVNULL
    with tempfile.TemporaryFile("w+") as output:
        started = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            text=True,
            cwd=ROOT,
            env={**environment(python), **env},
            start_new_session=True,
        )
        try:
            yield started, output
        finally:
            if started.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    started.stdin.close()
            else:
                started.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(timeout=STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
