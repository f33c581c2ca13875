"""Jobs that end without having run to their end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from stoker import apps, job_queries, jobs
from stoker.errors import Conflict, NotFound
from stoker.states import JobState
from tests.support.job_world import CRASH, RETRYABLE, World, manifest, until_blocked

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("later", [False, True])
async def test_a_job_that_waits_is_cancelled_at_once(world: World, later: bool) -> None:
    run_at = world.began + timedelta(hours=1) if later else None
    job = await world.submit(run_at=run_at, webhook_url="https://example.com")

    cancelled = await jobs.request_cancel(world.db, job.job_id, world.tenant_id)

    view = await job_queries.get(world.db, job.job_id, None)
    assert cancelled == jobs.CancelResult(JobState.CANCELLED, None, 2)
    assert (view.state, view.error, view.attempts) == (JobState.CANCELLED, None, ())
    assert view.cancel_requested_at is not None
    assert (await job_queries.events_after(world.db, job.job_id, 1))[0].data == {
        "state": "cancelled",
        "reason": "cancelled",
    }
    assert await world.value("SELECT count(*) FROM webhook_deliveries") == 1
    assert await (await world.node()).claim() is None


async def test_a_running_job_is_asked_to_stop_and_stays_running_until_it_has(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    claim = await node.take()

    asked = await jobs.request_cancel(world.db, job.job_id, world.tenant_id)
    again = await jobs.request_cancel(world.db, job.job_id, world.tenant_id)

    assert asked == again == jobs.CancelResult(JobState.RUNNING, "n1", 2)
    assert (await job_queries.get(world.db, job.job_id, None)).state is JobState.RUNNING
    finished = await node.finish(claim, jobs.Stopped())
    assert finished.state is JobState.CANCELLED
    [attempt] = (await job_queries.get(world.db, job.job_id, None)).attempts
    assert attempt.outcome == "cancelled"


async def test_a_result_that_came_before_the_stop_counts(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    claim = await node.take()
    await jobs.request_cancel(world.db, job.job_id, None)

    assert (await node.finish(claim)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("outcome", [CRASH, RETRYABLE])
async def test_a_job_that_was_to_be_cancelled_is_not_tried_again(world: World, outcome: jobs.Outcome) -> None:
    node = await world.node()
    job = await world.submit(max_attempts=5)
    claim = await node.take()
    await jobs.request_cancel(world.db, job.job_id, None)

    assert (await node.finish(claim, outcome)).state is JobState.CANCELLED


async def test_a_final_job_cannot_be_cancelled(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    await node.finish(await node.take())
    before = await world.everything()

    with pytest.raises(Conflict):
        await jobs.request_cancel(world.db, job.job_id, world.tenant_id)

    assert await world.everything() == before


async def test_another_tenants_job_cannot_be_cancelled_or_seen(world: World) -> None:
    job, other = await world.submit(), await world.tenant("other")

    for missing in (job.job_id, UUID(int=5)):
        with pytest.raises(NotFound):
            await jobs.request_cancel(world.db, missing, other)
        with pytest.raises(NotFound):
            await job_queries.get(world.db, missing, other)


async def test_a_cancel_and_a_claim_at_once_end_in_one_or_the_other(world: World) -> None:
    node = await world.node()
    for _ in range(10):
        job = await world.submit()

        cancelled, claim = await asyncio.gather(jobs.request_cancel(world.db, job.job_id, None), node.claim())

        if claim is None:
            assert cancelled.state is JobState.CANCELLED
        else:
            assert (cancelled.state, cancelled.node_id) == (JobState.RUNNING, "n1")
            await node.finish(claim, jobs.Stopped())


async def test_a_job_that_is_not_started_in_time_fails(world: World) -> None:
    job = await world.submit(start_timeout_s=30.0, webhook_url="https://example.com")
    await world.submit()
    await world.set_clock(29.9)
    assert await jobs.expire_unstarted(world.db) == []

    await world.set_clock(30)
    [moved] = await jobs.expire_unstarted(world.db)

    view = await job_queries.get(world.db, job.job_id, None)
    assert moved == jobs.Moved(job.job_id, JobState.FAILED, 2, "acme/echo")
    assert view.error is not None
    assert view.error["code"] == "start_timeout"
    assert (await job_queries.events_after(world.db, job.job_id, 1))[0].data["error"] == view.error
    assert await world.value("SELECT count(*) FROM webhook_deliveries") == 1
    assert await jobs.expire_unstarted(world.db) == []


async def test_a_job_whose_time_to_start_is_over_is_not_started(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    late = await world.submit(start_timeout_s=30.0, priority=0)
    await world.set_clock(30)
    assert await node.claim() is None
    beside, elsewhere = await world.submit(), await world.submit(tenant_id=other)

    assert {(await node.take()).job_id for _ in range(2)} == {beside.job_id, elsewhere.job_id}
    assert await node.claim() is None
    assert [moved.job_id for moved in await jobs.expire_unstarted(world.db)] == [late.job_id]


async def test_a_job_that_came_back_while_the_sweep_waited_for_the_app_is_not_failed(
    world: World, database_url: str
) -> None:
    await world.node()
    job = await world.submit(start_timeout_s=30.0)
    await world.set_clock(30)
    async with await psycopg.AsyncConnection.connect(database_url) as holding:
        await lock_app(holding)
        expiring = asyncio.create_task(jobs.expire_unstarted(world.db))
        await until_blocked(database_url)
        await holding.execute("UPDATE jobs SET attempt = 1")
        await holding.commit()
        assert await expiring == []

    assert (await job_queries.get(world.db, job.job_id, None)).state is JobState.QUEUED
    await world.rows("UPDATE jobs SET attempt = 0")


async def test_a_job_put_off_while_the_sweep_waited_for_the_app_stays_scheduled(
    world: World, database_url: str
) -> None:
    job = await world.submit(run_at=world.began + timedelta(seconds=10))
    await world.set_clock(10)
    async with await psycopg.AsyncConnection.connect(database_url) as holding:
        await lock_app(holding)
        promoting = asyncio.create_task(jobs.promote_due(world.db))
        await until_blocked(database_url)
        await holding.execute("UPDATE jobs SET available_at = available_at + interval '1 hour'")
        await holding.commit()
        assert await promoting == []

    assert (await job_queries.get(world.db, job.job_id, None)).state is JobState.SCHEDULED


@pytest.mark.parametrize("sweep", ["reap", "expire_unstarted", "promote_due"])
async def test_an_app_whose_jobs_cannot_be_moved_holds_no_other_up(world: World, sweep: str) -> None:
    other = await apps.publish(world.db, manifest("acme/another"))
    node = await world.node(versions=[world.default])
    beside = await world.node("n2", [other])
    for version, taker in ((world.default, node), (other, beside)):
        if sweep == "reap":
            await world.submit(version=version)
            await taker.take()
        elif sweep == "expire_unstarted":
            await world.submit(version=version, start_timeout_s=5.0)
        else:
            await world.submit(version=version, run_at=world.began + timedelta(seconds=5))
    await world.set_clock(60)
    await world.rows("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$")
    broken = f"OLD.version_id = '{world.default.id}'"
    await world.rows(
        f"CREATE TRIGGER refuse BEFORE UPDATE ON jobs FOR EACH ROW WHEN ({broken}) EXECUTE FUNCTION refuse()"
    )

    assert len(await getattr(jobs, sweep)(world.db)) == 1
    with pytest.raises(psycopg.errors.RaiseException, match="broken"):
        await getattr(jobs, sweep)(world.db)


async def lock_app(holding: psycopg.AsyncConnection) -> None:
    """Hold every change of an app's jobs up until ``holding`` commits."""
    await holding.execute("SELECT pg_advisory_xact_lock(hashtextextended(id::text, 0)) FROM apps")


async def test_the_start_timeout_of_a_later_job_begins_when_it_is_due(world: World) -> None:
    await world.submit(run_at=world.began + timedelta(seconds=100), start_timeout_s=30.0)

    await world.set_clock(120)
    assert await jobs.expire_unstarted(world.db) == []
    await world.set_clock(130)
    assert len(await jobs.expire_unstarted(world.db)) == 1


async def test_a_job_that_was_started_once_does_not_fail_for_not_being_started(world: World) -> None:
    node = await world.node()
    await world.submit(start_timeout_s=5.0)
    await node.take()
    await world.set_clock(60)
    await jobs.reap(world.db)

    assert await jobs.expire_unstarted(world.db) == []
    assert (await node.take()).attempt == 2
