"""A peer as ``runner`` sees it: a process that answers orders."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
# The longest order is a start of fal's; a peer that takes longer hangs.
LIMIT_S = 180.0


class PeerFailed(Exception):
    """A peer said an error, ended or hung."""


class Peer:
    """One process; ends with the ``with`` block, and all that it started with it."""

    def __init__(self, name: str, *, python: str = sys.executable, path: Sequence[Path] = ()) -> None:
        self.name = name
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the block ends
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            text=True,
            cwd=ROOT,
            env=environment(python, path),
            start_new_session=True,
        )

    def ask(self, do: str, **order: Any) -> Any:
        """Give an order and wait for the answer.

        Raises:
            PeerFailed: with what the peer said last.
        """
        answers, orders = self._process.stdout, self._process.stdin
        assert answers is not None
        assert orders is not None
        try:
            print(json.dumps({"do": do, **order}), file=orders, flush=True)
        except BrokenPipeError:
            raise PeerFailed(f"{self.name} has ended: {self._last_output()}") from None
        if not select.select([answers], [], [], LIMIT_S)[0]:
            raise PeerFailed(f"{self.name} did not answer to {do} within {LIMIT_S:.0f} s: {self._last_output()}")
        line = answers.readline()
        if not line:
            raise PeerFailed(f"{self.name} ended in {do}: {self._last_output()}")
        said = json.loads(line)
        if "error" in said:
            raise PeerFailed(f"{self.name} failed in {do}: {said['error']}")
        return said["value"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()

    def _last_output(self) -> str:
        # One that ends closes its answers before it says why.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        self._output.seek(0)
        return self._output.read()[-2000:]


def environment(python: str = sys.executable, path: Sequence[Path] = ()) -> dict[str, str]:
    """Return what every measured process gets: one thread a process, and modules from here.

    Where this process was told to look for modules is passed on to the same interpreter only.
    """
    told = os.environ.get("PYTHONPATH", "").split(os.pathsep) if python == sys.executable else []
    modules = os.pathsep.join(filter(None, [*map(str, path), str(ROOT), *told]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": modules}
