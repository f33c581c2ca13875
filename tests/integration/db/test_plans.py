"""The claim finds its job by the partial indexes, whatever else is in the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from stoker import claiming
from stoker.sql import statement
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


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable":
        yield plan["Relation Name"], plan["Node Type"], plan.get("Index Name")
    for inner in plan.get("Plans", []):
        yield from scans(inner)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_the_claim_uses_the_partial_indexes(world: World, database_url: str, mode: str) -> None:
    node = await world.node()
    for number in range(50):
        await world.rows("INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), :name)", name=f"t{number}")
    _, values = claiming.step(node.request)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(FILL)
        await connection.execute(f"SET plan_cache_mode = {mode}")
        explained = await connection.execute(b"EXPLAIN (FORMAT JSON) " + statement("claim"), values, prepare=True)
        row = await explained.fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])

    used = list(scans(plan[0]["Plan"]))
    waiting = {index for table, _, index in used if table == "jobs"}
    assert waiting == {"jobs_ready", "pk_jobs"}, used
    assert ("queue_lanes", "Index Scan", "lanes_open") in used or (
        "queue_lanes",
        "Index Only Scan",
        "lanes_open",
    ) in used, used
    assert not [scan for scan in used if scan[0] == "jobs" and scan[1] == "Seq Scan"]

    await world.rows("TRUNCATE jobs, queue_lanes CASCADE")
