"""The claim and the tenants' streams find their rows by indexes, whatever else is in the tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import TextClause

from stoker import claiming
from stoker.database import PLANNED_ONCE
from stoker.sql import statement
from stoker.tenant_events import OF_CHILDREN, OF_JOBS, OF_TENANT, OF_TREE, SCAN
from tests.support.job_world import World

pytestmark = pytest.mark.anyio

# A tenth waits, a tenth is not due, the rest is done; the first tenants own most of it.
FILL = """
INSERT INTO queue_lanes (version_id, uses_gpus, tenant_id, app_id, weight, max_running, has_ready, prio)
SELECT v.id, true, t.id, v.app_id, 1, 10, true, 5 FROM app_versions v, tenants t;
INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, result, max_attempts,
                  run_timeout_s, available_at, finished_at)
SELECT gen_random_uuid(), t.id, v.id, true, '/', 'inference', s.state, 5, '{}',
       CASE s.state WHEN 'succeeded' THEN '{}'::jsonb END, 1, 60, stoker_now(),
       CASE s.state WHEN 'succeeded' THEN stoker_now() END
FROM generate_series(1, 20000) n
CROSS JOIN LATERAL (SELECT CASE n % 10 WHEN 0 THEN 'queued' WHEN 1 THEN 'scheduled' ELSE 'succeeded' END AS state) s
CROSS JOIN app_versions v JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS i FROM tenants) t
  ON t.i = (n * n / 7) % (SELECT count(*) FROM tenants);
ANALYZE;
"""
# The first job has fifty children.
FILL_FAMILY = """
WITH child AS (
    UPDATE jobs SET parent_id = (SELECT id FROM jobs LIMIT 1) WHERE id IN (SELECT id FROM jobs OFFSET 100 LIMIT 50)
    RETURNING id, parent_id
)
INSERT INTO job_children (child_id, parent_id, root_id, depth, name, generation)
SELECT id, parent_id, parent_id, 1, id::text, 1 FROM child;
ANALYZE;
"""
# One tenant has nine events of ten, all below the horizon.
FILL_EVENTS = """
INSERT INTO job_heads (job_id, last_seq, mark) SELECT id, 2, 1 FROM jobs;
INSERT INTO job_events (tenant_id, mark, job_id, seq, attempt, kind, data)
SELECT CASE j.n % 10 WHEN 0 THEN j.tenant_id ELSE '{tenant_id}' END, 2 * j.n + s.seq, j.id, s.seq, 1, 'log', '{{}}'
FROM (SELECT id, tenant_id, row_number() OVER () AS n FROM jobs) j, generate_series(1, 2) s (seq);
UPDATE event_clock SET base = base + 1000000;
ANALYZE;
"""


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable":
        yield plan["Relation Name"], plan["Node Type"], plan.get("Index Name")
    for inner in plan.get("Plans", []):
        yield from scans(inner)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(("least_depth", "index"), [(0, "jobs_ready"), (2, "jobs_below")])
async def test_the_claim_uses_the_partial_indexes(
    world: World, database_url: str, mode: str, least_depth: int, index: str
) -> None:
    node = await world.node()
    for number in range(50):
        await world.rows("INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), :name)", name=f"t{number}")
    name, values = claiming.step(replace(node.request, least_depth=least_depth))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(FILL)
        await connection.execute(f"SET plan_cache_mode = {mode}")
        explained = await connection.execute(b"EXPLAIN (FORMAT JSON) " + statement(name), values, prepare=True)
        row = await explained.fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])

    used = list(scans(plan[0]["Plan"]))
    waiting = {index for table, _, index in used if table == "jobs"}
    assert waiting == {"jobs_ready", index, "pk_jobs"}, used
    assert ("queue_lanes", "Index Scan", "lanes_open") in used or (
        "queue_lanes",
        "Index Only Scan",
        "lanes_open",
    ) in used, used
    assert not [scan for scan in used if scan[0] == "jobs" and scan[1] == "Seq Scan"]

    await world.rows("TRUNCATE jobs, queue_lanes CASCADE")


async def test_who_counts_an_apps_queue_goes_through_no_other_though_it_planned_while_there_was_none(
    world: World, database_url: str
) -> None:
    values = {"version_id": world.default.id, "tenant_id": world.tenant_id, "idempotency_key": "k"}
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for name, value in PLANNED_ONCE.items():
            await connection.execute(f"SET {name} = {value}".encode())
        explained = await connection.execute(
            b"EXPLAIN (FORMAT JSON) " + statement("take_room"),
            values | {"most_waiting": 5, "tenant_most_waiting": 5},
            prepare=True,
        )
        row = await explained.fetchone()
    assert row is not None

    of_jobs = [inner for inner in below(row[0][0]["Plan"]) if inner.get("Relation Name") == "jobs"]
    conditions = [inner.get("Index Cond", "") for inner in of_jobs]
    assert len(conditions) >= 5
    assert [one for one in conditions if "version_id = " not in one and "idempotency_key = " not in one] == []


async def test_a_page_of_a_large_tenant_reads_neither_its_events_nor_its_jobs_from_end_to_end(
    world: World, database_url: str
) -> None:
    """What is narrowed to some jobs reads theirs alone."""
    for number in range(50):
        await world.rows("INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), :name)", name=f"t{number}")
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(FILL)
        await connection.execute(FILL_EVENTS.format(tenant_id=world.tenant_id).encode())
        await connection.execute(FILL_FAMILY)
        job_ids = [job_id for [job_id] in await (await connection.execute("SELECT id FROM jobs LIMIT 3")).fetchall()]
        values = dict.fromkeys(("app", "kinds", "states")) | {
            "parent_id": job_ids[0],
            "root_id": job_ids[0],
            "tenant_id": world.tenant_id,
            "job_id": UUID(int=0),
            "seq": 0,
            "scan": SCAN,
            "job_ids": job_ids,
        }
        plans = {
            read: await plans_of_page(connection, read, values) for read in (OF_TENANT, OF_JOBS, OF_CHILDREN, OF_TREE)
        }

    for read, explained in plans.items():
        for plan in explained:
            scanned = {table for table, node, _ in scans(plan) if node == "Seq Scan"}
            assert not scanned & {"job_events", "jobs", "job_heads"}, plan
            [page] = [inner for inner in below(plan) if inner.get("Subplan Name") == "CTE read"]
            indexes = {inner["Index Name"] for inner in below(page) if "Index Name" in inner}
            if read is OF_TENANT:
                assert "events_of_tenant" in indexes, plan
            elif read is not OF_JOBS:  # of a few jobs the newest rows may be found either way
                assert ("pk_job_events" in indexes, "events_of_tenant" in indexes) == (True, False), plan

    await world.rows("TRUNCATE jobs, queue_lanes CASCADE")


async def plans_of_page(
    connection: psycopg.AsyncConnection, read: TextClause, values: dict[str, Any]
) -> list[dict[str, Any]]:
    """From the first row, from the midst and from the end, with and without regard to the values."""
    names = list(dict.fromkeys(re.findall(r"(?<!:):(\w+)", read.text)))
    numbered = re.sub(r"(?<!:):(\w+)", lambda found: f"${names.index(found[1]) + 1}", read.text)
    await connection.execute("DEALLOCATE ALL")
    await connection.execute(b"PREPARE page AS " + numbered.encode())
    given = ", ".join(f"%({name})s" for name in names)
    plans = []
    for mode in ("force_custom_plan", "force_generic_plan"):
        await connection.execute(f"SET plan_cache_mode = {mode}".encode())
        for mark in (0, 20_000, 1_000_000):
            explaining = psycopg.AsyncClientCursor(connection)
            await explaining.execute(f"EXPLAIN (FORMAT JSON) EXECUTE page({given})".encode(), values | {"mark": mark})
            row = await explaining.fetchone()
            assert row is not None
            plans.append(row[0][0]["Plan"])
    return plans


def below(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from below(inner)
