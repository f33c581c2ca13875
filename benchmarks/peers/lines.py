"""A measured process and the benchmark that started it: one line of JSON asks, one answers, in turn."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

_LINE_BYTES = 2**26


class Asked(Iterator[dict[str, Any]]):
    """The measured process's side: what it is asked, until its stdin ends. Whatever libraries print goes to stderr."""

    def __init__(self) -> None:
        self._answers: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def __next__(self) -> dict[str, Any]:
        """Wait for a line."""
        line = sys.stdin.readline()
        if not line:
            raise StopIteration
        asked: dict[str, Any] = json.loads(line)
        return asked

    def answer(self, value: Mapping[str, Any]) -> None:
        """Answer the last line."""
        self._answers.write(json.dumps(value) + "\n")


class MeasuredProcess:
    """The benchmark's side."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a measured process needs pipes")
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout

    @classmethod
    async def start(cls, module: str, *arguments: str, env: Mapping[str, str]) -> MeasuredProcess:
        """Run ``python -m module``; its stderr is ours."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            env={**os.environ, **env},
            stdin=pipe,
            stdout=pipe,
            limit=_LINE_BYTES,
        )
        return cls(process)

    async def ask(self, **value: Any) -> dict[str, Any]:
        """Send a line and wait for its answer.

        Raises:
            EOFError: the process ended instead.
        """
        self._stdin.write(json.dumps(value).encode() + b"\n")
        await self._stdin.drain()
        line = await self._stdout.readline()
        if not line:
            raise EOFError(f"the measured process ended with {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def stop(self) -> None:
        """End its stdin and wait for its exit."""
        self._stdin.close()
        await self._process.wait()
