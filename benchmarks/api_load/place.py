"""Where a run takes place: engines, a database of its own with a key, and the processes beside the API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

import migrations
from benchmarks.api_load import ground
from benchmarks.api_load.cores import FOR_LOAD, children_on
from benchmarks.api_load.servers import Api, serving
from benchmarks.peers.lines import MeasuredProcess
from stoker import keys
from stoker.database import make_engine
from stoker.keys import NewKey
from stoker.local.engines import Engines


@dataclass(frozen=True)
class Place:
    """What the parts need."""

    engines: Engines
    db: AsyncEngine
    key: NewKey

    def api(self, *, port: int = 0) -> AbstractAsyncContextManager[Api]:
        """Run an API process. Nothing here stores a file: its object store is nowhere."""
        nowhere = {"S3_ENDPOINT_URL": "http://127.0.0.1:1", "S3_ACCESS_KEY_ID": "none", "S3_SECRET_ACCESS_KEY": "none"}
        return serving({**self.engines.environment(), **nowhere}, port=port)

    def load(self) -> AbstractAsyncContextManager[MeasuredProcess]:
        """Run the load generator."""
        return self._process("benchmarks.api_load.load")

    def node(self) -> AbstractAsyncContextManager[MeasuredProcess]:
        """Run the node."""
        return self._process("benchmarks.api_load.ranks")

    async def submit(self, count: int) -> list[str]:
        """Store jobs, without the API."""
        return await ground.submit(self.db, self.key, count)

    @property
    def _environ(self) -> Mapping[str, str]:
        return {"BENCH_DATABASE_URL": self.engines.database_url, "BENCH_REDIS_URL": self.engines.redis_url}

    @asynccontextmanager
    async def _process(self, module: str) -> AsyncIterator[MeasuredProcess]:
        with children_on(FOR_LOAD):
            process = await MeasuredProcess.start(module, env=self._environ)
        try:
            yield process
        finally:
            await process.stop()


@asynccontextmanager
async def made(engines: Engines) -> AsyncIterator[Place]:
    """Make it."""
    migrations.upgrade(engines.database_url)
    db = make_engine(engines.database_url, application_name="benchmark")
    try:
        yield Place(engines, db, await keys.create(db, scopes=frozenset({"run"})))
    finally:
        await db.dispose()
