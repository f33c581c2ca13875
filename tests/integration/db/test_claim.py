"""Who gets which job next."""

from __future__ import annotations

import asyncio
from collections import Counter

import psycopg
import pytest
from psycopg.rows import dict_row

from stoker import apps, claiming, jobs, lanes
from stoker.job_values import QueueKey
from stoker.sql import statement
from tests.support.job_world import CRASH, Node, World, endpoint, manifest, until_blocked

pytestmark = pytest.mark.anyio


async def test_a_claimed_job_runs_under_a_lease_and_an_attempt(world: World) -> None:
    node = await world.node()
    job = await world.submit(input={"n": 1})

    claim = await node.take()

    [row] = await world.rows("SELECT state, attempt, started_at = stoker_now() AS started FROM jobs")
    assert (claim.job_id, claim.attempt, claim.seq, claim.app, claim.input) == (job.job_id, 1, 2, "acme/echo", {"n": 1})
    assert row == {"state": "running", "attempt": 1, "started": True}
    assert await world.value("SELECT extract(epoch FROM expires_at - stoker_now())::int FROM job_leases") == 15
    assert await world.value("SELECT node_id FROM job_attempts WHERE outcome IS NULL") == "n1"
    assert await world.value("SELECT running FROM queue_lanes") == 1
    assert await node.claim() is None


async def test_claims_that_meet_without_the_apps_lock_take_no_job_twice(world: World, database_url: str) -> None:
    """Behind the lock they never do. The row's own lock stands where somebody claims with another one, or with none."""
    node = await world.node()
    first, second = await world.submit(), await world.submit()
    _, values = claiming.step(node.request)
    one = await psycopg.AsyncConnection.connect(database_url, row_factory=dict_row)
    other = await psycopg.AsyncConnection.connect(database_url, row_factory=dict_row)
    async with one, other:
        taken = await (await one.execute(statement("claim"), values)).fetchone()
        meeting = asyncio.create_task(other.execute(statement("claim"), values))
        await until_blocked(database_url)
        await one.commit()
        taken_next = await (await meeting).fetchone()

    assert [row and row["job_id"] for row in (taken, taken_next)] == [first.job_id, second.job_id]


async def test_higher_priority_goes_first_then_who_came_first(world: World) -> None:
    node = await world.node()
    submitted = [(await world.submit(priority=priority)).job_id for priority in (5, 9, 0, 5, 0)]

    taken = [(await node.take()).job_id for _ in submitted]

    assert [submitted.index(job) for job in taken] == [2, 4, 0, 3, 1]


async def test_the_lane_with_the_most_urgent_job_goes_first(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    for _ in range(3):
        await world.submit(priority=5)
    await node.take()
    urgent = await world.submit(tenant_id=other, priority=1)

    assert (await node.take()).job_id == urgent.job_id


async def test_an_urgent_job_is_seen_in_a_lane_that_is_awake(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    await world.submit(priority=5)
    await world.submit(priority=4, tenant_id=other)
    urgent = await world.submit(priority=0)

    assert (await node.take()).job_id == urgent.job_id


async def test_a_job_that_needs_no_gpu_does_not_wait_behind_one_that_does(world: World) -> None:
    version = await apps.publish(world.db, manifest("acme/two", endpoint("/gpu"), endpoint("/cpu", uses_gpus=False)))
    node = await world.node(versions=[version])
    for _ in range(3):
        await world.submit(version=version, endpoint="/gpu", priority=0)
    light = await world.submit(version=version, endpoint="/cpu", priority=9)

    only_light = Node(world.db, node.id, (QueueKey(version.id, uses_gpus=False),), node.boot_id)

    assert (await only_light.take()).job_id == light.job_id
    assert await only_light.claim() is None
    assert (await node.take()).uses_gpus is True


async def test_a_node_takes_only_versions_that_it_serves(world: World) -> None:
    newer = await apps.publish(world.db, manifest("acme/echo", endpoint(), endpoint("/more")))
    old_node, new_node = await world.node("old"), await world.node("new", [newer])
    old, new = await world.submit(), await world.submit(version=newer)

    assert (await new_node.take()).job_id == new.job_id
    assert await new_node.claim() is None
    assert (await old_node.take()).job_id == old.job_id


async def test_a_tenant_at_its_cap_does_not_hold_up_the_others(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    await world.rows("UPDATE tenants SET max_running = 2 WHERE id = :id", id=world.tenant_id)
    for _ in range(5):
        await world.submit(priority=0)
    theirs = [(await world.submit(tenant_id=other, priority=9)).job_id for _ in range(2)]

    taken = [await node.take() for _ in range(4)]

    assert [claim.job_id for claim in taken if claim.tenant_id == other] == theirs
    assert await node.claim() is None
    mine = next(claim for claim in taken if claim.tenant_id == world.tenant_id)
    await node.finish(mine)
    assert (await node.take()).tenant_id == world.tenant_id


async def test_an_app_at_its_cap_gives_nothing(world: World) -> None:
    node = await world.node()
    await world.rows("UPDATE apps SET max_running = 1")
    await world.submit()
    await world.submit(tenant_id=await world.tenant("other"))

    first = await node.take()

    assert await node.claim() is None
    await node.finish(first)
    assert await node.claim() is not None


@pytest.mark.parametrize("table", ["apps", "queue_lanes"])
async def test_what_is_paused_gives_nothing_until_it_is_resumed(world: World, table: str) -> None:
    node = await world.node()
    await world.submit()
    await world.rows(f"UPDATE {table} SET paused = true")

    assert await node.claim() is None
    await world.rows(f"UPDATE {table} SET paused = false")
    assert await node.claim() is not None


async def test_a_newcomer_waits_behind_one_job_of_a_busy_tenant_at_most(world: World) -> None:
    node = await world.node()
    for _ in range(60):
        await world.submit()
    for _ in range(10):
        await node.take()

    for number in range(10):
        newcomer = await world.tenant(f"newcomer-{number}")
        await world.submit(tenant_id=newcomer)
        before = 0
        while (await node.take()).tenant_id != newcomer:
            before += 1
        assert before <= 1


async def test_a_tenant_that_was_idle_has_no_credit(world: World) -> None:
    node, idle = await world.node(), await world.tenant("idle")
    await world.submit(tenant_id=idle)
    await node.take()
    await lanes.tend(world.db)
    for _ in range(30):
        await world.submit()
    for _ in range(20):
        await node.take()
    for _ in range(10):
        await world.submit(tenant_id=idle)

    next_ten = Counter([(await node.take()).tenant_id for _ in range(10)])

    assert next_ten == {idle: 5, world.tenant_id: 5}


async def test_tenants_of_weight_1_2_4_are_served_1_2_4(world: World) -> None:
    node = await world.node()
    tenants = [await world.tenant(f"weight-{weight}") for weight in (1, 2, 4)]
    for tenant, weight in zip(tenants, (1, 2, 4), strict=True):
        await world.rows("UPDATE tenants SET weight = :weight WHERE id = :id", weight=weight, id=tenant)
    for tenant in tenants:
        for _ in range(45):
            await world.submit(tenant_id=tenant)

    served = Counter([(await node.take()).tenant_id for _ in range(70)])

    assert [served[tenant] for tenant in tenants] == [10, 20, 40]


async def test_finishing_takes_the_next_job_in_the_same_step(world: World) -> None:
    node = await world.node()
    await world.submit()
    second = await world.submit()
    first = await node.take()

    finished = await jobs.finish(world.db, first.lease, jobs.Succeeded({}), jobs.Usage(), then=node.request)

    assert finished.applied
    assert finished.next is not None
    assert finished.next.job_id == second.job_id
    last = await jobs.finish(world.db, finished.next.lease, jobs.Succeeded({}), jobs.Usage(), then=node.request)
    assert (last.applied, last.next) == (True, None)


async def test_a_claim_that_fails_does_not_take_the_result_with_it(world: World) -> None:
    node = await world.node()
    await world.submit()
    await world.submit()
    first = await node.take()
    impossible = jobs.ClaimRequest(node.id, node.boot_id, node.queues, "r0", lease_s=float("inf"))

    finished = await jobs.finish(world.db, first.lease, jobs.Succeeded({"n": 1}), jobs.Usage(), then=impossible)

    assert (finished.applied, finished.next) == (True, None)
    assert await world.value("SELECT result FROM jobs WHERE id = :id", id=first.job_id) == {"n": 1}
    assert (await node.take()).attempt == 1


async def test_a_finish_that_does_not_count_claims_nothing(world: World) -> None:
    node = await world.node()
    await world.submit()
    await world.submit()
    first = await node.take()
    await node.finish(first)

    late = await jobs.finish(world.db, first.lease, jobs.Succeeded({}), jobs.Usage(), then=node.request)

    assert (late.applied, late.next) == (False, None)
    assert await world.value("SELECT count(*) FROM job_leases") == 0


async def test_a_job_avoids_the_node_it_crashed_on_while_another_lives(world: World) -> None:
    bad, good = await world.node("bad"), await world.node("good")
    await world.submit()
    await bad.finish(await bad.take(), CRASH)

    assert await bad.claim() is None
    assert (await good.take()).attempt == 2


async def test_a_job_returns_to_the_node_it_crashed_on_after_a_while(world: World) -> None:
    bad = await world.node("bad")
    await world.node("good")
    await world.submit()
    await bad.finish(await bad.take(), CRASH)

    await world.set_clock(59)
    assert await bad.claim() is None
    await world.set_clock(60)
    assert (await bad.take()).attempt == 2


async def test_a_job_is_not_kept_from_the_only_node(world: World) -> None:
    only, draining = await world.node("only"), await world.node("draining")
    await world.rows("UPDATE nodes SET state = 'draining' WHERE id = :id", id=draining.id)
    await world.submit()

    await only.finish(await only.take(), CRASH)

    assert (await only.take()).attempt == 2


async def test_jobs_behind_an_avoided_one_are_not_held_up(world: World) -> None:
    bad = await world.node("bad")
    await world.node("good")
    await world.submit(priority=0)
    await bad.finish(await bad.take(), CRASH)
    other = await world.submit()

    assert (await bad.take()).job_id == other.job_id
