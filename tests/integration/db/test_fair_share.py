"""Tenants share an app by the GPU-seconds that their jobs take, not by how many they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

import psycopg
import pytest

from stoker import apps, jobs, lanes
from tests.support.job_world import DONE, Node, World, endpoint, manifest, new_world

pytestmark = pytest.mark.anyio


@pytest.fixture
async def moving_world(database_url: str) -> AsyncIterator[World]:
    async with new_world(database_url, pool_size=8, frozen=False) as world:
        yield world


async def backlog(world: World, tenants: Mapping[UUID, int]) -> None:
    for tenant, count in tenants.items():
        for _ in range(count):
            await world.submit(tenant_id=tenant)


async def serve(node: Node, took_s: Mapping[UUID, float], claims: int) -> Counter[UUID]:
    """One GPU's work: so many jobs, one after another. The GPU-seconds that each tenant got."""
    spent: Counter[UUID] = Counter()
    for _ in range(claims):
        claim = await node.take()
        spent[claim.tenant_id] += int(took_s[claim.tenant_id])
        await node.finish(claim, gpu_seconds=took_s[claim.tenant_id])
    return spent


async def test_tenants_with_long_and_short_jobs_get_the_same_gpu_seconds(world: World) -> None:
    short, long = world.tenant_id, await world.tenant("long")
    await backlog(world, {short: 120, long: 15})

    spent = await serve(await world.node(), {short: 1, long: 10}, claims=110)

    assert sum(spent.values()) > 150
    assert abs(spent[short] - spent[long]) <= 20


async def test_a_tenant_of_twice_the_weight_gets_twice_the_gpu_seconds(world: World) -> None:
    light, heavy = await world.tenant("light"), await world.tenant("heavy")
    await world.rows("UPDATE tenants SET weight = 2 WHERE id = :id", id=heavy)
    await backlog(world, {light: 80, heavy: 45})

    spent = await serve(await world.node(), {light: 2, heavy: 8}, claims=100)

    assert abs(spent[heavy] - 2 * spent[light]) <= 32


async def test_a_job_that_took_longer_than_expected_is_paid_by_its_tenant_alone(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    await backlog(world, {world.tenant_id: 3, other: 60})
    while (claim := await node.take()).tenant_id != world.tenant_id:
        await node.finish(claim)
    await node.finish(claim, gpu_seconds=41.0)

    others = 0
    while (claim := await node.take()).tenant_id == other:
        await node.finish(claim)
        others += 1

    assert 35 <= others <= 45


async def test_what_a_short_job_was_charged_too_much_is_given_back(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    await backlog(world, {world.tenant_id: 8})
    await serve(node, {world.tenant_id: 100}, claims=4)
    before = await world.value("SELECT vtime FROM queue_lanes")

    await node.finish(await node.take(), gpu_seconds=1.0)

    assert await world.value("SELECT vtime FROM queue_lanes") == pytest.approx(before + 1)
    await backlog(world, {other: 3})
    assert await world.value("SELECT job_cost > 30 FROM queue_lanes WHERE tenant_id = :id", id=other)


async def test_a_newcomer_whose_jobs_are_long_does_not_take_every_gpu_before_the_first_is_measured(
    world: World,
) -> None:
    """Its jobs are taken to cost what the app's others do: else many would start on a guess of next to nothing."""
    node, newcomer = await world.node(), await world.tenant("newcomer")
    await backlog(world, {world.tenant_id: 30})
    await serve(node, {world.tenant_id: 600}, claims=12)
    await backlog(world, {newcomer: 20})

    started = Counter([(await node.take()).tenant_id for _ in range(8)])

    assert abs(started[newcomer] - started[world.tenant_id]) <= 2


async def test_jobs_that_use_no_gpu_are_shared_by_the_seconds_they_run(world: World) -> None:
    version = await apps.publish(world.db, manifest("acme/cpu", endpoint(uses_gpus=False)))
    node, other = await world.node(versions=[version]), await world.tenant("other")
    for tenant in (world.tenant_id, other):
        for _ in range(30):
            await world.submit(version=version, tenant_id=tenant)
    clock, ran = 0.0, Counter[UUID]()

    for _ in range(33):
        claim = await node.take()
        took = 5.0 if claim.tenant_id == other else 1.0
        clock += took
        ran[claim.tenant_id] += int(took)
        await world.set_clock(clock)
        await jobs.finish(world.db, claim.lease, DONE, jobs.Usage())

    assert abs(ran[other] - ran[world.tenant_id]) <= 10


async def test_jobs_that_cost_next_to_nothing_do_not_starve_the_others(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    await backlog(world, {world.tenant_id: 40, other: 40})

    served: Counter[UUID] = Counter()
    for _ in range(40):
        claim = await node.take()
        served[claim.tenant_id] += 1
        await node.finish(claim, gpu_seconds=0.0)

    assert 15 <= served[other] <= 25


async def test_an_attempt_that_was_given_back_has_cost_what_was_guessed(world: World) -> None:
    node = await world.node()
    await world.submit()
    claim = await node.take()
    charged = await world.value("SELECT vtime FROM queue_lanes")

    await jobs.release(world.db, {claim.lease: None}, "draining")

    [lane] = await world.rows("SELECT vtime, job_cost, running FROM queue_lanes")
    assert lane == {"vtime": charged, "job_cost": 1.0, "running": 0}


async def test_a_tenant_whose_long_job_runs_waits_for_other_gpus_until_the_others_have_had_as_much(
    world: World,
) -> None:
    node, second, other = await world.node(), await world.node("n2"), await world.tenant("other")
    await backlog(world, {world.tenant_id: 1})
    long = await node.take()
    await backlog(world, {world.tenant_id: 30, other: 60})
    await world.set_clock(20)
    await node.renew(long)  # 20 s on 2 GPUs

    await lanes.charge_running(world.db)
    served = [(await second.take()).tenant_id for _ in range(50)]

    assert 38 <= served.index(world.tenant_id) <= 41
    assert 4 <= Counter(served)[world.tenant_id] <= 6, "and then they share"


async def test_what_was_charged_as_a_job_ran_is_put_right_by_its_end(world: World) -> None:
    node, heavy = await world.node(), await world.tenant("heavy")
    await world.rows("UPDATE tenants SET weight = 4 WHERE id = :id", id=heavy)
    await backlog(world, {heavy: 2})
    before = await world.value("SELECT vtime FROM queue_lanes")
    long, beside = await node.take(), await node.take()
    charged = []
    for clock in (14.0, 28.0, 42.0, 47.0):
        await world.set_clock(clock)
        await node.renew(long, beside)
        await asyncio.gather(*(lanes.charge_running(world.db) for _ in range(3)))  # replicas
        charged.append(await world.value("SELECT vtime FROM queue_lanes") - before)

    await node.finish(long, gpu_seconds=71.5)
    await node.finish(beside, gpu_seconds=90.0)

    assert charged == pytest.approx([2 * 2 * at / 4 for at in (14.0, 28.0, 42.0, 42.0)]), "for 10 s more at a time"
    assert await world.value("SELECT vtime FROM queue_lanes") == pytest.approx(before + 161.5 / 4)


async def test_a_job_whose_node_is_not_heard_of_costs_no_more(world: World) -> None:
    node = await world.node()
    await backlog(world, {world.tenant_id: 1})
    lost = await node.take()
    await world.set_clock(12)
    await node.renew(lost)
    await world.set_clock(400)

    await lanes.charge_running(world.db)
    await jobs.reap(world.db)

    assert await world.value("SELECT vtime FROM queue_lanes") == pytest.approx(24.0)


async def test_a_lease_that_is_just_being_renewed_keeps_no_tick_waiting(world: World, database_url: str) -> None:
    node = await world.node()
    await backlog(world, {world.tenant_id: 2})
    claims = [await node.take(), await node.take()]
    await world.set_clock(20)
    await node.renew(*claims)
    before = await world.value("SELECT vtime FROM queue_lanes")

    async with await psycopg.AsyncConnection.connect(database_url) as renewing:
        await renewing.execute("SELECT 1 FROM job_leases WHERE job_id = %s FOR NO KEY UPDATE", [claims[0].job_id])
        await lanes.charge_running(world.db)
        meanwhile = await world.value("SELECT vtime FROM queue_lanes")
    await lanes.charge_running(world.db)

    assert meanwhile == pytest.approx(before + 40 - 1)
    assert await world.value("SELECT vtime FROM queue_lanes") == pytest.approx(before + 80 - 2)


async def test_a_lane_that_wakes_is_not_held_to_what_one_long_gone_has_used(world: World) -> None:
    """Lanes at their cap are not open; beside them a newcomer starts where they are, not where the busiest ever was."""
    node, gone, capped = await world.node(), await world.tenant("gone"), await world.tenant("capped")
    await world.rows("UPDATE tenants SET max_running = 1 WHERE id = :id", id=capped)
    await backlog(world, {capped: 9, gone: 1})
    claims = [await node.take(), await node.take()]
    await node.finish(next(claim for claim in claims if claim.tenant_id == gone), gpu_seconds=5000.0)
    await lanes.tend(world.db)
    held = next(claim for claim in claims if claim.tenant_id == capped)
    await backlog(world, {world.tenant_id: 4})

    served = []
    for _ in range(4):
        await node.finish(held)
        held = await node.take()
        served.append(held.tenant_id)

    assert served.count(world.tenant_id) == 2


async def test_four_claimers_at_once_share_by_weight_and_gpu_seconds(moving_world: World) -> None:
    world = moving_world
    nodes = [await world.node(f"n{number}") for number in range(4)]
    weights = {1: await world.tenant("one"), 3: await world.tenant("three")}
    took_s = {weights[1]: 2.0, weights[3]: 5.0}
    for weight, tenant in weights.items():
        await world.rows("UPDATE tenants SET weight = :weight WHERE id = :id", weight=weight, id=tenant)
    await backlog(world, {weights[1]: 120, weights[3]: 120})
    spent: Counter[UUID] = Counter()

    async def work(node: Node) -> None:
        claim = await node.take()
        while sum(spent.values()) < 500:
            spent[claim.tenant_id] += int(took_s[claim.tenant_id])
            usage = jobs.Usage(took_s[claim.tenant_id], 2)
            following = (await jobs.finish(world.db, claim.lease, DONE, usage, then=node.request)).next
            assert following is not None
            claim = following
        await node.finish(claim, gpu_seconds=took_s[claim.tenant_id])

    await asyncio.gather(*(work(node) for node in nodes))

    assert 2.6 <= spent[weights[3]] / spent[weights[1]] <= 3.4
    assert await world.invariants() == []
