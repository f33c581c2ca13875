"""procrastinate on Postgres. It stores states and no results: its functions append when they were entered to a file."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import procrastinate
import psycopg

from benchmarks.queue_peers.system import Place

ASK_S = 0.005
place = Place()
entered = Path(place.folder) / "entered"
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=place.database_url))


@app.task(name="noop", pass_context=True)
async def noop(context: procrastinate.JobContext) -> None:
    """Note when it was entered."""
    at = time.time()
    file = os.open(entered, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{context.job.id} {at}\n".encode())
    os.close(file)


class Procrastinate:
    """The caller."""

    async def open(self) -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()
        self._db = await psycopg.AsyncConnection.connect(place.database_url, autocommit=True)

    async def submit(self) -> int:
        return int(await noop.defer_async())

    async def finished(self) -> int:
        counted = await self._db.execute("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'")
        row = await counted.fetchone()
        return int(row[0]) if row else 0

    async def entries(self, jobs: Sequence[int]) -> list[float]:
        lines = [line.split() for line in entered.read_text().splitlines()]
        at = {int(job): float(moment) for job, moment in lines}
        return [at[job] for job in jobs]

    async def wait(self, job: int) -> None:
        while await self._status(job) != "succeeded":  # noqa: ASYNC110 - another process sets it
            await asyncio.sleep(ASK_S)

    async def _status(self, job: int) -> str:
        asked = await self._db.execute("SELECT status::text FROM procrastinate_jobs WHERE id = %s", [job])
        row = await asked.fetchone()
        return str(row[0]) if row else "unknown"


def make() -> Procrastinate:
    """Make the caller."""
    return Procrastinate()
