"""Pause and resume, caps under several claimers, and queues that may grow no longer."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

from stoker import app_limits, apps, claiming, jobs, tenants
from stoker.errors import InvalidRequest, QueueFull, UnknownApp
from stoker.sql import statement
from tests.support.job_world import DONE, RETRYABLE, Node, World, endpoint, manifest, until_blocked

pytestmark = pytest.mark.anyio

APP = "acme/echo"


async def limited(world: World, length: int) -> apps.AppVersion:
    await app_limits.set_limits(world.db, APP, {"max_queue_length": length})
    return await apps.newest(world.db, APP)


async def test_a_paused_app_ends_what_runs_and_starts_nothing_until_it_is_resumed(world: World) -> None:
    node = await world.node()
    for _ in range(3):
        await world.submit()
    running = await node.take()

    await app_limits.pause(world.db, APP)
    finished = await jobs.finish(world.db, running.lease, DONE, jobs.Usage(), then=node.request)
    late = await world.submit()

    assert (finished.applied, finished.next, await node.claim()) == (True, None, None)
    assert await world.value("SELECT count(*) FROM jobs WHERE state = 'queued'") == 3
    await app_limits.resume(world.db, APP)
    assert late.job_id in [(await node.take()).job_id for _ in range(3)]


async def test_a_pause_holds_for_its_app_alone(world: World) -> None:
    other = await apps.publish(world.db, manifest("acme/other"))
    node, elsewhere = await world.node("n1"), await world.node("n2", [other])
    await world.submit()
    await world.submit(version=other)

    await app_limits.pause(world.db, APP)

    assert await node.claim() is None
    assert await elsewhere.claim() is not None


async def test_no_claim_is_granted_once_a_pause_has_committed(world: World, database_url: str) -> None:
    """A claim that waits for the app's lock behind the pause sees it: its snapshot is taken behind the lock."""
    node = await world.node()
    await world.submit()
    app_id = await world.value("SELECT id FROM apps")

    async with await psycopg.AsyncConnection.connect(database_url) as pausing:
        await pausing.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s::text, 0))", [app_id])
        claiming = asyncio.create_task(node.claim())
        await until_blocked(database_url)
        await pausing.execute("UPDATE apps SET paused = true")
        await pausing.commit()

        assert await claiming is None


async def test_each_change_is_written_down(world: World) -> None:
    await app_limits.pause(world.db, APP)
    await app_limits.set_limits(world.db, APP, {"max_running": 4})
    await app_limits.resume(world.db, APP)

    rows = await world.rows("SELECT action, target, data FROM audit_log WHERE action LIKE 'app.%' ORDER BY id")
    assert [row["action"] for row in rows] == ["app.pause", "app.set", "app.resume"]
    assert rows[1]["data"] == {"paused": True, "max_running": 4, "max_queue_length": None}


@pytest.mark.parametrize("limits", [{"max_running": 0}, {"max_queue_length": 0}, {"max_waiting": 3}])
async def test_limits_that_cannot_be_are_refused(world: World, limits: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest):
        await app_limits.set_limits(world.db, APP, limits)

    with pytest.raises(UnknownApp):
        await app_limits.pause(world.db, "no/such")


async def test_the_cap_of_an_app_holds_over_its_lanes_and_versions_under_many_claimers(world: World) -> None:
    newer = await apps.publish(world.db, manifest(APP, endpoint(), endpoint("/more", uses_gpus=False)))
    nodes = [await world.node(f"n{number}", [world.default, newer]) for number in range(8)]
    for tenant in [await world.tenant(f"t{number}") for number in range(4)]:
        await world.submit(tenant_id=tenant)
        await world.submit(tenant_id=tenant, version=newer, endpoint="/more")
        await world.submit(tenant_id=tenant, version=newer)
    await app_limits.set_limits(world.db, APP, {"max_running": 3})
    most = 0

    async def work(node: Node) -> None:
        nonlocal most
        for _ in range(6):
            claim = await node.claim()
            most = max(most, await world.value("SELECT count(*) FROM job_leases"))
            if claim is not None:
                await node.finish(claim)

    await asyncio.gather(*(work(node) for node in nodes))

    assert most <= 3
    assert await world.value("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == 12


@pytest.mark.parametrize("capped", ["app", "tenant"])
async def test_a_claim_waits_for_one_that_has_not_committed_before_it_counts(
    world: World, database_url: str, capped: str
) -> None:
    version = world.default
    if capped == "app":
        version = await apps.publish(world.db, manifest(APP, endpoint(), endpoint("/more")))
        await app_limits.set_limits(world.db, APP, {"max_running": 1})
    else:
        await tenants.set_limits(world.db, "default", max_running=1)
    first, second = await world.node("n1"), await world.node("n2", [version])
    await world.submit()
    await world.submit(version=version)
    _, claim = claiming.step(first.request)

    async with await psycopg.AsyncConnection.connect(database_url) as claimer:
        await claimer.execute(statement("lock_app_of_version"), {"version_id": world.default.id})
        taken = await (await claimer.execute(statement("claim"), claim)).fetchone()
        waiting = asyncio.create_task(second.claim())
        await until_blocked(database_url)
        await claimer.commit()

        assert taken is not None
        assert await waiting is None


async def test_a_full_queue_refuses_and_writes_nothing(world: World) -> None:
    version = await limited(world, 2)
    newcomer = await world.tenant("newcomer")
    for _ in range(2):
        await world.submit(version=version)
    before = await world.everything()

    with pytest.raises(QueueFull) as refused:
        await world.submit(version=version, tenant_id=newcomer)

    assert (refused.value.code, refused.value.status, refused.value.retryable) == ("queue_full", 429, True)
    assert await world.everything() == before


async def test_a_queue_has_room_again_when_a_job_was_taken(world: World) -> None:
    version, node = await limited(world, 1), await world.node()
    await world.submit(version=version)
    await node.take()

    await world.submit(version=version)

    with pytest.raises(QueueFull):
        await world.submit(version=version)


async def test_scheduled_jobs_and_those_of_older_versions_fill_the_queue_too(world: World) -> None:
    await world.submit()
    await apps.publish(world.db, manifest(APP, endpoint(), endpoint("/more")))
    version = await limited(world, 2)
    await world.submit(version=version, run_at=world.began + timedelta(hours=1))

    with pytest.raises(QueueFull):
        await world.submit(version=version)
    with pytest.raises(QueueFull):
        await world.submit(version=version, run_at=world.began + timedelta(hours=1))


async def test_a_known_idempotency_key_is_answered_though_the_queue_is_full(world: World) -> None:
    version = await limited(world, 1)
    first = await world.submit(version=version, idempotency_key="once")

    again = await world.submit(version=version, idempotency_key="once")

    assert (again.job_id, again.created) == (first.job_id, False)
    with pytest.raises(QueueFull):
        await world.submit(version=version, idempotency_key="another")


async def test_a_job_that_is_tried_again_comes_back_into_a_full_queue(world: World) -> None:
    version, node = await limited(world, 1), await world.node()
    await world.submit(version=version, max_attempts=2)
    running = await node.take()
    await world.submit(version=version)

    await node.finish(running, RETRYABLE)

    assert await world.value("SELECT state FROM jobs WHERE id = :id", id=running.job_id) == "scheduled"


async def test_many_submits_at_once_fill_a_queue_to_its_limit_exactly(world: World) -> None:
    version = await limited(world, 7)
    submitters = [await world.tenant(f"t{number}") for number in range(4)] * 5

    answers = await asyncio.gather(
        *(world.submit(version=version, tenant_id=tenant) for tenant in submitters), return_exceptions=True
    )

    assert [type(answer) for answer in answers if isinstance(answer, BaseException)] == [QueueFull] * 13
    assert await world.value("SELECT count(*) FROM jobs") == 7


async def test_a_limit_that_was_taken_away_refuses_nothing(world: World) -> None:
    stale = await limited(world, 1)
    await world.submit(version=stale)
    await app_limits.set_limits(world.db, APP, {"max_queue_length": None})

    assert (await world.submit(version=stale)).created
