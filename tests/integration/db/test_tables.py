"""What the tables themselves refuse."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.support.job_world import World

pytestmark = pytest.mark.anyio

REFUSED = [
    "UPDATE jobs SET state = 'lost'",
    "UPDATE jobs SET state = 'succeeded', result = '{}'",
    "UPDATE jobs SET finished_at = stoker_now()",
    "UPDATE jobs SET result = '{}'",
    "UPDATE jobs SET error = '{}'",
    "UPDATE jobs SET state = 'running'",
    "UPDATE jobs SET priority = 10",
    "UPDATE jobs SET crashes = 1",
    "UPDATE jobs SET idempotency_key = 'x'",
    "UPDATE queue_lanes SET running = -1",
    "INSERT INTO job_events (job_id, seq, kind, data) SELECT id, 1, 'state', '{}' FROM jobs",
    "INSERT INTO job_events (job_id, seq, kind, data) SELECT id, 2, 'progress', '{}' FROM jobs",
    "DELETE FROM queue_lanes",
]


@pytest.mark.parametrize("statement", REFUSED)
async def test_a_row_that_cannot_be_true_is_refused(world: World, database_url: str, statement: str) -> None:
    await world.submit()

    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        with pytest.raises(psycopg.errors.IntegrityError):
            await connection.execute(statement)


async def test_no_index_stands_on_a_column_that_a_heartbeat_writes(world: World) -> None:
    written = {
        ("job_leases", "expires_at"),
        ("job_leases", "renewed_at"),
        ("job_heads", "progress"),
        ("job_heads", "progress_at"),
    }
    written |= {("nodes", "heartbeat_at")}

    indexed = await world.rows(
        "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)"
    )

    assert written.isdisjoint((row["relname"], row["attname"]) for row in indexed)


async def test_a_hundred_heartbeats_are_hot_updates(world: World) -> None:
    node = await world.node()
    await world.submit()
    claim = await node.take()
    for step in range(100):
        await node.renew(claim, progress={claim.job_id: {"step": step}})

    await world.db.dispose()  # a session that ends says what it has written
    counted = list[dict[str, Any]]()
    async with asyncio.timeout(20):
        while len(counted) < 2:
            counted = await world.rows(
                "SELECT relname, n_tup_upd - n_tup_hot_upd AS cold FROM pg_stat_user_tables "
                "WHERE relname IN ('job_leases', 'nodes') AND n_tup_upd >= 100"
            )

    assert {row["relname"]: row["cold"] for row in counted} == {"job_leases": 0, "nodes": 0}
