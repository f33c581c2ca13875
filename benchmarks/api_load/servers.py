"""API processes as they run in production, ``python -m api``, on the core that is theirs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.api_load.cores import FOR_API, children_on


@dataclass(frozen=True)
class Api:
    """A running one."""

    url: str
    process: asyncio.subprocess.Process

    @property
    def port(self) -> int:
        """Where it listens on the loopback."""
        return urlsplit(self.url).port or 80

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    async def end(self, how: signal.Signals) -> None:
        """Signal it and wait for its exit."""
        self.process.send_signal(how)
        await self.process.wait()


@asynccontextmanager
async def serving(environ: Mapping[str, str], *, port: int = 0) -> AsyncIterator[Api]:
    """Run one while the context lasts, unless it is ended before."""
    reader, writer = os.pipe()
    told = {**os.environ, **environ, "STOKER_PORT": str(port), "STOKER_READY_FD": str(writer)}
    with children_on(FOR_API):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api", env=told, pass_fds=[writer], stderr=asyncio.subprocess.DEVNULL
        )
    os.close(writer)
    try:
        with os.fdopen(reader) as ready:
            line = await asyncio.to_thread(ready.readline)
        yield Api(json.loads(line)["url"], process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
