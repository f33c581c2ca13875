"""App hosts on apps of ``serving.py``, and calls that keep their events."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from stoker.errors import CallRefused
from stoker.ids import new_id
from tests.support.patience import waiting_for
from worker_node.host import AppHost, AppSpec, HostCall, HostEvent, HostResult, HostStatus
from worker_node.host_values import AppAnswer, AppCall

HERE = Path(__file__).parent


class Hosted:
    """An app host, everything that it said, and short ways to use it."""

    def __init__(self, app: str, spool: Path, env: dict[str, str], world_size: int | None = None) -> None:
        self.events: list[HostEvent] = []
        self.statuses: list[HostStatus] = []
        self.fetched: list[str] = []
        self.fetch: Callable[[str], Awaitable[Path]] = self._no_fetch
        self._heard = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        spec = AppSpec(app if ":" in app else f"{HERE}/serving.py:{app}", world_size, spool, env)
        self.host = AppHost(spec, on_change=lambda status: self._hear(self.statuses, status))
        self.host.place(None)

    def forget(self) -> None:
        """Begin anew, for another test."""
        self.events.clear()
        self.fetched.clear()
        self.fetch = self._no_fetch

    async def call(
        self, endpoint: str = "/", call_id: str = "", job_id: UUID | None = None, **request: Any
    ) -> HostResult:
        call = HostCall(
            call_id=call_id or uuid4().hex,
            endpoint=endpoint,
            input=request,
            job_id=job_id or new_id(),
            attempt=1,
            on_event=lambda event: self._hear(self.events, event),
            fetch=self._fetch,
            call_app=self._call_app,
        )
        async with self._waiting_for(f"{endpoint} with {request} to end"):
            return await self.host.call(call)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for an event or a status after which ``holds``."""
        async with self._waiting_for("what it was to say"), self._heard:
            await self._heard.wait_for(holds)

    def _waiting_for(self, subject: str) -> AbstractAsyncContextManager[None]:
        return waiting_for(lambda: f"{subject}: {self.host.status}, {self.events}")

    def _hear(self, into: list[Any], what: Any) -> None:
        into.append(what)
        task = asyncio.get_running_loop().create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._heard:
            self._heard.notify_all()

    async def _fetch(self, url: str) -> Path:
        self.fetched.append(url)
        return await self.fetch(url)

    @staticmethod
    async def _call_app(asked: AppCall) -> AppAnswer:
        raise CallRefused(f"{asked.app} is not here")

    @staticmethod
    async def _no_fetch(url: str) -> Path:
        raise AssertionError(f"nothing was to be fetched: {url}")


Serve = Callable[..., Awaitable[Hosted]]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Serve]:
    """Start hosts of apps; all are stopped at the end."""
    running: list[Hosted] = []

    async def start(app: str, *, world_size: int | None = None, **env: str) -> Hosted:
        spool = folder / f"spool-{len(running)}"
        hosted = Hosted(app, spool, {**os.environ, "OMP_NUM_THREADS": "1", **env}, world_size)
        running.append(hosted)
        await hosted.host.start()
        await hosted.until(lambda: hosted.host.status.state == "ready")
        return hosted

    try:
        yield start
    finally:
        await asyncio.gather(*(hosted.host.stop(2) for hosted in running))


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start hosts of a test's own."""
    async with serving(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
async def shared(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serve]:
    """Start hosts for all tests of a module: they take turns."""
    async with serving(tmp_path_factory.mktemp("hosts")) as start:
        yield start
