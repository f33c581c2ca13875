"""Lanes: asleep and awake, and never asleep on a job that waits."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from stoker import jobs, lanes
from stoker.ids import new_id
from stoker.sql import statement
from tests.support.job_world import World, until_blocked

pytestmark = pytest.mark.anyio


async def awake(world: World) -> list[bool]:
    return [row["has_ready"] for row in await world.rows("SELECT has_ready FROM queue_lanes ORDER BY tenant_id")]


async def test_an_empty_lane_is_put_to_sleep_and_a_submit_wakes_it(world: World) -> None:
    node = await world.node()
    await world.submit()
    claim = await node.take()
    assert await awake(world) == [True]

    await lanes.tend(world.db)
    assert await awake(world) == [False]
    await node.finish(claim)
    await world.submit()

    assert await awake(world) == [True]
    assert await node.claim() is not None


async def test_a_lane_with_a_job_that_waits_stays_awake(world: World) -> None:
    await world.submit()

    await lanes.tend(world.db)

    assert await awake(world) == [True]


async def test_a_lane_is_not_put_to_sleep_under_a_submit_that_has_not_committed(
    world: World, database_url: str
) -> None:
    """The job's reference to its lane holds the tick off: else the lane would sleep on the job for ever."""
    node = await world.node()
    await world.submit()
    await node.finish(await node.take())
    lane = {"version_id": world.default.id, "uses_gpus": True, "tenant_id": world.tenant_id}
    job = await world.rows("SELECT * FROM jobs")

    async with await psycopg.AsyncConnection.connect(database_url) as submitting:
        row = job[0] | lane | {"job_id": new_id(), "run_at": None, "input": "{}", "counted": 0}
        await submitting.execute(statement("submit"), row)
        await submitting.execute(statement("wake_lane"), lane | {"priority": 5, "job_id": None})
        await lanes.tend(world.db)
        await submitting.commit()

    assert await awake(world) == [True]
    assert await node.claim() is not None


async def test_a_submit_waits_for_a_tick_that_is_putting_its_lane_to_sleep_and_then_wakes_it(
    world: World, database_url: str
) -> None:
    node = await world.node()
    await world.submit()
    await node.finish(await node.take())
    app_id = await world.value("SELECT id FROM apps")

    async with await psycopg.AsyncConnection.connect(database_url) as tick:
        [held] = await (await tick.execute(statement("hold_empty_lanes"), {"app_id": app_id})).fetchall()
        submitting = asyncio.create_task(world.submit())
        await until_blocked(database_url)
        versions, gpus, tenants = ([value] for value in held)
        await tick.execute(statement("sleep_lanes"), {"versions": versions, "gpus": gpus, "tenants": tenants})
        await tick.commit()
        await submitting

    assert await awake(world) == [True]
    assert await node.claim() is not None


async def test_the_tick_mends_what_is_wrong_about_a_lane(world: World) -> None:
    node = await world.node()
    await world.submit(priority=5)
    await world.submit(priority=3)
    await node.take()
    await world.rows("UPDATE queue_lanes SET has_ready = false, running = 7, prio = 0")

    await lanes.tend(world.db)

    [lane] = await world.rows("SELECT has_ready, running, prio FROM queue_lanes")
    assert lane == {"has_ready": True, "running": 1, "prio": 5}


async def test_the_tick_leaves_lanes_alone_that_are_as_they_should_be(world: World) -> None:
    await world.submit()
    before = await world.rows("SELECT xmin::text, ctid::text FROM queue_lanes")

    await lanes.tend(world.db)

    assert await world.rows("SELECT xmin::text, ctid::text FROM queue_lanes") == before


async def test_an_urgent_submit_during_a_claim_is_not_forgotten(world: World, database_url: str) -> None:
    """The claim sets the lane's best priority from what it saw; a better one that came since must stand."""
    node, other = await world.node(), await world.tenant("other")
    await world.submit(priority=5)
    await world.submit(priority=4)
    await world.submit(priority=4, tenant_id=other)
    lane = {"version_id": world.default.id, "uses_gpus": True, "tenant_id": world.tenant_id}
    row = (await world.rows("SELECT * FROM jobs LIMIT 1"))[0] | lane

    async with await psycopg.AsyncConnection.connect(database_url) as submitting:
        urgent = row | {"job_id": new_id(), "run_at": None, "input": "{}", "counted": 0, "priority": 0}
        await submitting.execute(statement("submit"), urgent)
        await submitting.execute(statement("wake_lane"), lane | {"priority": 0, "job_id": None})
        claiming = asyncio.create_task(node.take())
        await until_blocked(database_url)
        await submitting.commit()
        await claiming

    assert (await node.take()).job_id == urgent["job_id"]


async def test_many_ticks_and_moves_at_once_do_not_deadlock(world: World) -> None:
    node = await world.node()
    tenants = [await world.tenant(f"t{n}") for n in range(4)]

    async def live(tenant: object) -> None:
        for _ in range(6):
            await world.submit(tenant_id=tenant)
            claim = await node.claim()
            if claim is not None:
                await asyncio.gather(node.renew(claim), node.finish(claim))
            await asyncio.gather(lanes.tend(world.db), jobs.reap(world.db), jobs.promote_due(world.db))

    await asyncio.gather(*(live(tenant) for tenant in tenants))

    assert await world.value("SELECT count(*) FROM job_leases") == 0
