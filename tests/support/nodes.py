"""Real nodes and the database behind them, for tests of what happens to a job."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, job_queries, jobs, keys
from stoker.database import make_engine
from stoker.job_views import JobView
from stoker.local.engines import Engines
from stoker.local.part import Part, wait_ready
from stoker.local.process import Process
from stoker.nodes import list_nodes
from stoker.queue import Doorbell
from tests.support.patience import PATIENCE_S, waiting_for
from tests.support.processes import Watched

POLL_S = 0.02


@dataclass
class NodeProcess:
    """A node that runs. ``facts`` is what it said when it was ready."""

    process: Process
    facts: Mapping[str, Any]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.process.log.read_text()

    def family(self) -> Watched:
        """The node and all processes below it, as they are now."""
        return Watched([self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))])

    def kill(self) -> None:
        """As the out-of-memory killer would: nothing can be said or cleaned up."""
        family = self.family()
        os.kill(self.pid, signal.SIGKILL)
        assert family.have_ended(within_s=PATIENCE_S), "processes of a killed node are still there"

    def ask_to_stop(self) -> Watched:
        """SIGTERM. What is to end: the node and all processes below it."""
        family = self.family()
        os.kill(self.pid, signal.SIGTERM)
        return family

    def terminate(self) -> None:
        """SIGTERM, and wait for the end of everything."""
        assert self.ask_to_stop().have_ended(within_s=PATIENCE_S), self.log


@contextmanager
def running_node(
    engines: Engines,
    database_url: str,
    data_dir: Path,
    apps_: Sequence[str],
    *,
    arguments: Sequence[str] = (),
    **settings: str,
) -> Iterator[NodeProcess]:
    """A node of its own process, ready; killed at the end if it still runs."""
    environ = {
        **os.environ,
        **engines.environment(),
        "DATABASE_URL": database_url,
        "STOKER_DATA_DIR": str(data_dir),
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    words = [word for app in apps_ for word in ("--app", app)]
    part = Part("node", "worker_node", data_dir / "log", environ, arguments=[*words, "--world-size", "2", *arguments])
    process, reader = part.start()
    try:
        yield NodeProcess(process, wait_ready(process, reader))
    finally:
        process.stop()


class Desk:
    """What a caller of the system would do, on the database alone."""

    def __init__(self, db: AsyncEngine, tenant_id: UUID, bell: Doorbell) -> None:
        self.db, self.tenant_id, self._bell = db, tenant_id, bell

    @classmethod
    async def open(cls, database_url: str, redis_url: str) -> Desk:
        db = make_engine(database_url, application_name="tests")
        key = await keys.create(db, scopes=frozenset({"run"}))
        return cls(db, key.tenant_id, Doorbell(redis_url))

    async def close(self) -> None:
        await self._bell.close()
        await self.db.dispose()

    async def submit(self, app: str, endpoint: str = "/", *, ring: bool = True, **input_: Any) -> UUID:
        version = await apps.newest(self.db, app)
        new = jobs.NewJob(tenant_id=self.tenant_id, version=version, endpoint=endpoint, input=input_)
        submitted = await jobs.submit(self.db, new)
        if ring:
            self._bell.ring(submitted.queue)
        return submitted.job_id

    def ring(self, app: str) -> None:
        self._bell.ring(app)

    async def get(self, job_id: UUID) -> JobView:
        return await job_queries.get(self.db, job_id, None)

    async def until(self, job_id: UUID, is_so: Callable[[JobView], bool]) -> JobView:
        """The job, as soon as ``is_so``."""
        job = await self.get(job_id)

        async def look() -> JobView | None:
            nonlocal job
            job = await self.get(job_id)
            return job if is_so(job) else None

        def last_seen() -> str:
            outcomes = [attempt.outcome for attempt in job.attempts]
            return f"a change of job {job_id} of {self.db.url.database}: it is {job.state}, its attempts are {outcomes}"

        found: JobView = await eventually(look, last_seen)
        return found

    async def final(self, job_id: UUID) -> JobView:
        return await self.until(job_id, lambda job: job.state.is_final)

    async def says(self, job_id: UUID, message: str) -> None:
        """Wait until the job's log has this line: its app is at work."""

        async def look() -> bool | None:
            lines = [data["message"] for kind, data in await self.events(job_id) if kind == "log"]
            return message in lines or None

        await eventually(look, lambda: f"job {job_id} to say {message!r}")

    async def node_is(self, node_id: str, state: str) -> None:
        async def look() -> bool | None:
            return any((node.node_id, node.state) == (node_id, state) for node in await list_nodes(self.db)) or None

        await eventually(look, lambda: f"node {node_id} to be {state}")

    async def events(self, job_id: UUID) -> list[tuple[str, dict[str, Any]]]:
        return [(str(event.kind), dict(event.data)) for event in await job_queries.events_after(self.db, job_id, 0)]


async def eventually(look: Callable[[], Awaitable[Any]], subject: Callable[[], str]) -> Any:
    """What ``look`` gives as soon as it gives something: Postgres tells nobody when a row changes."""
    async with waiting_for(subject):
        while (found := await look()) is None:  # noqa: ASYNC110 - another process writes the row
            await asyncio.sleep(POLL_S)
    return found
