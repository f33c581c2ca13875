"""The stage: two apps, three tenants, two nodes on a real Postgres whose clock the test moves.

Several sequences use one stage; ``clear`` takes away what the last one left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, keys
from stoker.apps import AppVersion
from stoker.database import make_engine
from stoker.job_values import QueueKey
from tests.protocol.oracle import Row, Seen
from tests.support.job_world import Node, endpoint, manifest

T = TypeVar("T")

APPS = ("acme/one", "acme/two")
TENANTS = ("ann", "bob", "cyd")
NODES = ("n1", "n2")
BEGAN = 1_767_225_600.0
KEPT = {
    "jobs": "id",
    "job_heads": "job_id",
    "job_attempts": "job_id, attempt",
    "job_leases": "job_id",
    "job_events": "job_id, seq",
    "job_outputs": "id",
    "usage_records": "job_id, attempt",
    "webhook_deliveries": "job_id",
    "queue_lanes": "version_id, uses_gpus, tenant_id",
    "apps": "id",
}
LOOK = "SELECT " + ", ".join(
    f"(SELECT coalesce(jsonb_agg(t ORDER BY {order}), '[]') FROM {table} t) AS {table}" for table, order in KEPT.items()
)
MUST_BE_EMPTY = "SELECT * FROM v_invariants"
SUMS = """
SELECT coalesce(sum(attempts), 0)::int AS attempts, coalesce(sum(gpu_seconds), 0) AS gpu_seconds,
       coalesce(sum(useful_gpu_seconds), 0) AS useful, coalesce(sum(wasted_gpu_seconds), 0) AS wasted FROM v_gpu_seconds
"""
# All sessions see it at once, whoever opened them, and it does not move by itself.
CLOCK = """
CREATE TABLE test_clock AS SELECT to_timestamp(0) AS at;
CREATE OR REPLACE FUNCTION stoker_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT at FROM test_clock $$;
"""
CLEAR = """
DELETE FROM usage_records; DELETE FROM job_events; DELETE FROM jobs; DELETE FROM queue_lanes;
DELETE FROM nodes; UPDATE apps SET paused = false, max_running = NULL, max_queue_length = NULL;
UPDATE tenants SET weight = 1, max_running = 2147483647;
"""


class Stage:
    def __init__(self, database_url: str) -> None:
        self._runner = asyncio.Runner()
        self._watching = psycopg.connect(database_url, autocommit=True, row_factory=dict_row)
        self._watching.execute(CLOCK)
        self.db: AsyncEngine = make_engine(database_url, application_name="test")
        self.now = BEGAN
        self.versions: dict[str, AppVersion] = {}
        self.tenants: dict[str, UUID] = {}
        self.run(self._furnish())

    async def _furnish(self) -> None:
        for app in APPS:
            self.versions[app] = await apps.publish(
                self.db, manifest(app, endpoint("/"), endpoint("/cpu", uses_gpus=False))
            )
        for tenant in TENANTS:
            self.tenants[tenant] = (await keys.create(self.db, tenant=tenant, scopes=frozenset({"run"}))).tenant_id

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(doing)

    def both(self, *doing: Coroutine[Any, Any, T]) -> list[T]:
        """At the same time."""

        async def gather() -> list[T]:
            return await asyncio.gather(*doing)

        return self.run(gather())

    def clear(self) -> None:
        self._watching.execute(CLEAR)
        self.now = BEGAN
        self.advance(0)

    def advance(self, by_s: float) -> None:
        self.now += by_s
        self._watching.execute("UPDATE test_clock SET at = to_timestamp(%s)", [self.now])

    def node(self, node_id: str) -> Node:
        """A new boot of a node; it has not said so yet."""
        queues = tuple(QueueKey(version.id, gpus) for version in self.versions.values() for gpus in (True, False))
        return Node(self.db, node_id, queues, uuid4())

    def look(self) -> Seen:
        [seen] = self._watching.execute(LOOK).fetchall()
        return seen

    def broken(self) -> list[Row]:
        """What the view says that must be empty."""
        return self._watching.execute(MUST_BE_EMPTY).fetchall()

    def sums(self) -> Row:
        """Usage as admins see it."""
        [sums] = self._watching.execute(SUMS).fetchall()
        return sums

    def close(self) -> None:
        self.run(self.db.dispose())
        self._watching.close()
        self._runner.close()


@contextmanager
def stage(database_url: str) -> Iterator[Stage]:
    made = Stage(database_url)
    try:
        yield made
    finally:
        made.close()
