"""Celery on Redis, with results in Redis or by SQLAlchemy in Postgres, as its documentation has it.

Prefork, its own pool; early ack, its default. Results by SQLAlchemy are polled for, so a caller that waits asks each
5 ms rather than each half a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import psycopg
import redis
from celery import Celery
from celery.result import AsyncResult

from benchmarks.queue_peers.system import Place

ASK_S = 0.005
place = Place()
in_postgres = os.environ["BENCH_SYSTEM"] == "celery sqlalchemy"
results = place.database_url.replace("postgresql://", "db+postgresql+psycopg://") if in_postgres else place.results_url
app = Celery("bench", broker=place.redis_url, backend=results)
app.conf.update(worker_hijack_root_logger=False, task_serializer="json", accept_content=["json"])


@app.task(name="noop")
def noop() -> float:
    """Tell when it was entered."""
    return time.time()


class Celeries:
    """The caller."""

    async def open(self) -> None:
        if in_postgres:
            self._db = psycopg.connect(place.database_url, autocommit=True)
        else:
            self._redis = redis.Redis.from_url(place.results_url)

    async def submit(self) -> AsyncResult[float]:
        return noop.delay()

    async def finished(self) -> int:
        if not in_postgres:
            return int(self._redis.dbsize())
        if self._db.execute("SELECT to_regclass('celery_taskmeta')").fetchone() == (None,):
            return 0
        row = self._db.execute("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'").fetchone()
        return int(row[0]) if row else 0

    async def entries(self, jobs: Sequence[AsyncResult[float]]) -> list[float]:
        return [job.get(interval=ASK_S) for job in jobs]

    async def wait(self, job: AsyncResult[float]) -> None:
        job.get(interval=ASK_S)


def make() -> Celeries:
    """Make the caller."""
    return Celeries()
