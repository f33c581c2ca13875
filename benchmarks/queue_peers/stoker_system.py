"""Stoker by its HTTP API, as a client on another machine has it. The database is read to see what became of jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import psycopg

from benchmarks.queue_peers.bare_http import Posts
from benchmarks.queue_peers.system import Place
from stoker.client import Client

WAYS = """
SELECT a.claimed - j.created, (j.result->>'at')::float8 - a.claimed, j.finished - (j.result->>'at')::float8
FROM (SELECT id, extract(epoch FROM created_at)::float8 AS created, result,
      extract(epoch FROM finished_at)::float8 AS finished FROM jobs) j
JOIN (SELECT job_id, extract(epoch FROM claimed_at)::float8 AS claimed FROM job_attempts) a ON a.job_id = j.id
WHERE j.id = ANY(%s::uuid[])
"""


class Stoker:
    """The caller."""

    async def open(self) -> None:
        url, key = os.environ["BENCH_API_URL"], os.environ["BENCH_API_KEY"]
        body = {"app": os.environ["BENCH_APP"], "endpoint": os.environ["BENCH_ENDPOINT"], "input": {}}
        self._posts = Posts(f"{url}/v1/jobs", {"authorization": f"Key {key}"}, body)
        self._client = Client(url, key)
        self._db = psycopg.connect(Place().database_url, autocommit=True)

    async def submit(self) -> str:
        return str((await self._posts.post())["id"])

    async def finished(self) -> int:
        row = self._db.execute("SELECT count(*) FROM jobs WHERE state = 'succeeded'").fetchone()
        return int(row[0]) if row else 0

    async def entries(self, jobs: Sequence[str]) -> list[float]:
        found = self._db.execute("SELECT id::text, result->>'at' FROM jobs WHERE id = ANY(%s::uuid[])", [list(jobs)])
        at = {job: float(moment) for job, moment in found.fetchall()}
        self._last = list(jobs)
        return [at[job] for job in jobs]

    async def stages(self) -> dict[str, list[float]]:
        """Where the last entries' milliseconds went; each begins when its transaction did."""
        rows = self._db.execute(WAYS, [self._last]).fetchall()
        names = ("stored to claimed", "claimed to entered", "entered to finishing")
        return {name: [row[n] * 1000 for row in rows] for n, name in enumerate(names)}

    async def wait(self, job: str) -> None:
        await asyncio.to_thread(self._follow, job)

    def _follow(self, job: str) -> None:
        for _ in self._client.events(job):
            pass


def make() -> Stoker:
    """Make the caller."""
    return Stoker()
