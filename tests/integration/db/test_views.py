"""The views for admins answer, and v_invariants sees what is wrong."""

from __future__ import annotations

import psycopg
import pytest

from stoker import jobs
from tests.support.job_world import CRASH, USER_ERROR, World

pytestmark = pytest.mark.anyio

VIEWS = {
    *("v_attempts", "v_failures", "v_gpu_seconds", "v_invariants", "v_jobs", "v_nodes", "v_queue_depth"),
    *("v_job_children", "v_job_trees", "v_queue_positions", "v_queue_wait", "v_stuck_jobs", "v_throughput_hourly"),
    *("v_audit", "v_deliveries", "v_removals", "v_requests", "v_retention", "v_usage"),
}


async def test_every_view_answers_on_an_empty_database(world: World) -> None:
    names = {row["viewname"] for row in await world.rows("SELECT viewname FROM pg_views WHERE schemaname = 'public'")}

    assert names == VIEWS
    for name in names - {"v_audit"}:  # which has the first key's making
        assert await world.rows(f"SELECT * FROM {name}") == []


async def test_the_views_tell_what_happened(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    for _ in range(3):
        await world.submit()
    await node.finish(await node.take(), gpu_seconds=4.0)
    await world.set_clock(2)
    await node.finish(await node.take(), USER_ERROR, gpu_seconds=1.0)
    running = await node.take()
    await node.renew(running, progress={running.job_id: {"step": 1}})
    await world.submit(tenant_id=other)
    await world.set_clock(5)

    depth = await world.rows("SELECT tenant, queued, running, oldest_wait_s, live_nodes FROM v_queue_depth")
    assert depth == [
        {"tenant": "default", "queued": 0, "running": 1, "oldest_wait_s": None, "live_nodes": 1},
        {"tenant": "other", "queued": 1, "running": 0, "oldest_wait_s": 3.0, "live_nodes": 1},
    ]
    seen = await world.rows("SELECT state, node_id, progress FROM v_jobs WHERE state = 'running'")
    assert seen == [{"state": "running", "node_id": "n1", "progress": {"step": 1}}]
    await world.rows(
        "UPDATE job_attempts SET log_file = jsonb_build_object('url', '/a/link', 'lines', 7) WHERE job_id = :id",
        id=running.job_id,
    )
    logs = await world.rows("SELECT log_file FROM v_attempts ORDER BY claimed_at")
    assert [row["log_file"] for row in logs] == [None, None, {"lines": 7}], "not where it can be read"
    [failure] = await world.rows("SELECT app, error_code, jobs, sample_message FROM v_failures")
    assert failure == {"app": "acme/echo", "error_code": "app_error", "jobs": 1, "sample_message": "no such style"}
    spent = await world.rows("SELECT sum(gpu_seconds) AS g, sum(useful_gpu_seconds) AS u FROM v_gpu_seconds")
    assert spent == [{"g": 5.0, "u": 4.0}]
    [wait] = await world.rows("SELECT app, jobs, p50_s, p99_s FROM v_queue_wait")
    assert (wait["jobs"], wait["p50_s"]) == (2, 1.0)
    done = await world.rows("SELECT state, jobs FROM v_throughput_hourly ORDER BY state")
    assert done == [{"state": "failed", "jobs": 1}, {"state": "succeeded", "jobs": 1}]
    [shown] = await world.rows("SELECT node_id, is_live, running, apps FROM v_nodes")
    assert shown == {"node_id": "n1", "is_live": True, "running": 1, "apps": ["acme/echo"]}


async def test_stuck_jobs_are_named_with_their_problem(world: World) -> None:
    node = await world.node()
    for _ in range(2):
        await world.submit()
    lost, slow = await node.take(), await node.take()
    await jobs.request_cancel(world.db, slow.job_id, None)
    lonely = await world.submit(tenant_id=await world.tenant("other"))
    await world.set_clock(61)
    await node.renew(slow)
    await world.rows("UPDATE nodes SET state = 'stopped'")

    stuck = await world.rows("SELECT job_id, problem FROM v_stuck_jobs")

    assert {(row["job_id"], row["problem"]) for row in stuck} == {
        (lost.job_id, "lease ran out"),
        (lost.job_id, "past run_timeout"),
        (slow.job_id, "past run_timeout"),
        (slow.job_id, "cancel not carried out"),
        (lonely.job_id, "no live node serves it"),
    }


DAMAGE = {
    "a running job has a lease of its attempt": "DELETE FROM job_leases",
    "a lease belongs to a running job and its attempt": "UPDATE job_leases SET attempt = 7",
    "a lane counts its leases": "UPDATE queue_lanes SET running = 5",
    "a lane with a ready job is awake": "UPDATE queue_lanes SET has_ready = false",
    "attempts are numbered 1, 2, 3 ... up to the job's": "DELETE FROM job_attempts WHERE attempt = 1",
    "an attempt is open exactly while it holds the lease": "UPDATE job_attempts SET outcome = NULL, ended_at = NULL",
    "a job succeeds by one attempt": "UPDATE job_attempts SET outcome = 'succeeded' WHERE outcome = 'failed'",
    "events are numbered without a gap": "UPDATE job_events SET seq = 90 WHERE seq = 2",
    "the last event of a final job, and no other, says its state": "UPDATE job_events SET data = '{}' WHERE seq = 5",
    "a final job with a webhook has one delivery": "DELETE FROM webhook_deliveries",
    "usage is what the attempt took": "UPDATE usage_records SET gpu_seconds = 0",
    "outputs are of the attempt that succeeded": "UPDATE job_outputs SET attempt = 1",
}


@pytest.mark.parametrize("rule", DAMAGE)
async def test_every_invariant_sees_its_damage(world: World, database_url: str, rule: str) -> None:
    """One job that crashed once and succeeded, one that runs, one that waits; then something is broken."""
    node = await world.node()
    await world.submit(webhook_url="https://example.com", priority=0)
    await node.finish(await node.take(), CRASH)
    stored = jobs.Output(world.tenant_id, "a", "", "k", "image/png", 1, "ab", "t" * 40)
    again = await node.take()
    await jobs.finish(world.db, again.lease, jobs.Succeeded({}, (stored,)), jobs.Usage(1.0, 1))
    await world.submit(priority=1)
    await node.take()
    await world.submit(priority=2)

    async with await psycopg.AsyncConnection.connect(database_url) as damaging:
        assert await (await damaging.execute("SELECT * FROM v_invariants")).fetchall() == []
        await damaging.execute(DAMAGE[rule])
        broken = await (await damaging.execute("SELECT DISTINCT rule FROM v_invariants")).fetchall()
        await damaging.rollback()

    assert (rule,) in broken


async def test_the_damages_are_all_of_the_rules(world: World) -> None:
    definition = await world.value("SELECT pg_get_viewdef('v_invariants'::regclass)")

    assert definition.count("UNION ALL") + 1 == len(DAMAGE)


async def test_who_may_only_read_sees_the_views_and_no_table(world: World, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as reading:
        await reading.execute("SET ROLE stoker_readonly")
        for view in sorted(VIEWS):
            await reading.execute(f"SELECT * FROM {view}")
        for table in ("jobs", "api_keys", "signing_keys"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await reading.execute(f"SELECT * FROM {table}")


async def test_usage_is_added_up_by_the_day_on_which_an_attempt_ended(world: World) -> None:
    node = await world.node()
    day_s = 86_400
    for at_s in (0, day_s, day_s, 3 * day_s):
        await world.set_clock(at_s)
        await world.submit()
        await node.finish(await node.take(), gpu_seconds=2.0)
    for view in ("v_gpu_seconds", "v_usage"):
        days = await world.rows(
            f"SELECT day - min(day) OVER () AS after, attempts, gpu_seconds FROM {view} ORDER BY day"
        )
        late = await world.rows(f"SELECT attempts FROM {view} WHERE day > (SELECT min(day) FROM {view})")

        assert [(row["after"].days, row["attempts"], row["gpu_seconds"]) for row in days] == [
            (0, 1, 2.0),
            (1, 2, 4.0),
            (3, 1, 2.0),
        ]
        assert sorted(row["attempts"] for row in late) == [1, 2]
