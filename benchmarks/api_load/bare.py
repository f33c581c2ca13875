"""Bare inserts: the rows of a submit, by a program that does nothing else. What submits by HTTP are measured against.

A transaction a job: its lane held and woken by the submit's own statements, and between them plain inserts of the job,
its head and its first event. Each statement is prepared once and waits for its answer, as drivers do by default, or
all go in one round trip, as the product's do. The session has the product's settings.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.api_load.ground import ENDPOINT, INPUT, publish
from stoker import sql
from stoker.database import make_engine, prepared
from stoker.job_values import NewJob

JOB = b"""
INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, max_attempts,
                  run_timeout_s, available_at, tags, key_id, depth)
VALUES (%(job_id)s, %(tenant_id)s, %(version_id)s, %(uses_gpus)s, %(endpoint)s, %(kind)s, 'queued', %(priority)s,
        %(plain_input)s, %(max_attempts)s, %(run_timeout_s)s, now(), %(tags)s::text[], %(key_id)s, %(depth)s)
"""
HEAD = b"INSERT INTO job_heads (job_id, last_seq, mark) VALUES (%(job_id)s, 1, stoker_mark())"
EVENT = b"""
INSERT INTO job_events (tenant_id, mark, job_id, seq, kind, data)
VALUES (%(tenant_id)s, stoker_mark(), %(job_id)s, 1, 'state', %(first)s)
"""


class Bare:
    """Connections that insert."""

    def __init__(self) -> None:
        self._url = os.environ["BENCH_DATABASE_URL"]

    async def insert(
        self, tenant_id: str, key_id: str, connections: int, seconds: float, together: bool = False
    ) -> dict[str, Any]:
        """Insert over so many connections, one job after the other on each; ms of each."""
        db = make_engine(self._url, application_name="bench-bare", pool_size=connections)
        version = await publish(db)
        new = NewJob(tenant_id=tenant_id, version=version, endpoint=ENDPOINT, input=INPUT, key_id=key_id)  # type: ignore[arg-type]  # as text
        taken_ms: list[float] = []
        ends = time.monotonic() + seconds

        async def one() -> None:
            async with prepared(db) as connection:
                while (now := time.monotonic()) < ends:
                    row = {**new.row(), "plain_input": Jsonb(INPUT)}
                    row["first"] = Jsonb({"state": "queued", "reason": "submitted"})
                    if together:
                        async with connection.pipeline():
                            await _insert(connection, row)
                    else:
                        async with connection.transaction():
                            await _insert(connection, row)
                    taken_ms.append((time.monotonic() - now) * 1000)

        await asyncio.gather(*(one() for _ in range(connections)))
        await db.dispose()
        return {"taken_ms": taken_ms, "rate": len(taken_ms) / seconds}


async def _insert(connection: psycopg.AsyncConnection[Any], row: Mapping[str, Any]) -> None:
    for text in (sql.statement("make_lane"), JOB, HEAD, EVENT, sql.statement("wake_lane")):
        await connection.execute(text, row, prepare=True)
