"""Tenants: what an admin sets holds for every lane, those that exist and those to come."""

from __future__ import annotations

import asyncio
from collections import Counter

import psycopg
import pytest

from stoker import apps, keys, tenants
from stoker.errors import InvalidRequest, NotFound
from stoker.sql import statement
from tests.support.job_world import World, manifest, until_blocked

pytestmark = pytest.mark.anyio


async def test_a_weight_counts_from_the_next_claim_on(world: World) -> None:
    node, other = await world.node(), await world.tenant("other")
    for tenant in (world.tenant_id, other):
        for _ in range(40):
            await world.submit(tenant_id=tenant)
    before = Counter([(await node.take()).tenant_id for _ in range(10)])

    await tenants.set_limits(world.db, "other", weight=3)
    after = Counter([(await node.take()).tenant_id for _ in range(40)])

    assert before[other] == 5
    assert 29 <= after[other] <= 31


async def test_a_cap_holds_for_every_lane_of_the_tenant_and_can_be_taken_away(world: World) -> None:
    second = await apps.publish(world.db, manifest("acme/second"))
    await world.submit()
    await tenants.set_limits(world.db, "default", max_running=1)
    await world.submit()
    for _ in range(2):
        await world.submit(version=second)
    first_node, second_node = await world.node("n1"), await world.node("n2", [second])
    await first_node.take()
    await second_node.take()

    assert (await first_node.claim(), await second_node.claim()) == (None, None)
    await tenants.set_limits(world.db, "default", uncapped=True)

    assert None not in (await first_node.claim(), await second_node.claim())


async def test_what_is_not_named_stays(world: World) -> None:
    await tenants.set_limits(world.db, "default", weight=2.5, max_running=7)

    await tenants.set_limits(world.db, "default", weight=4)

    [shown] = await tenants.list_tenants(world.db)
    assert (shown.name, shown.limits) == ("default", tenants.Limits(4.0, 7))


async def test_a_change_is_written_down(world: World) -> None:
    await tenants.set_limits(world.db, "default", weight=2)

    [row] = await world.rows("SELECT target, about_tenant, data FROM audit_log WHERE action = 'tenant.set'")
    data = {"weight": 2, "max_running": 2147483647, "max_requests_per_s": None, "max_waiting": None}
    assert row == {"target": "default", "about_tenant": world.tenant_id, "data": data}


async def test_a_lane_that_is_being_made_gets_what_is_set_meanwhile(world: World, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as setting:
        await setting.execute("SELECT 1 FROM tenants WHERE name = 'default' FOR UPDATE")
        submitting = asyncio.create_task(world.submit())
        await until_blocked(database_url)
        await setting.execute("UPDATE tenants SET weight = 9 WHERE name = 'default'")
        await setting.commit()
        await submitting

    assert await world.value("SELECT weight FROM queue_lanes") == 9


async def test_changes_and_claims_at_once_do_not_deadlock(world: World) -> None:
    second = await apps.publish(world.db, manifest("acme/second"))
    nodes = [await world.node("n1"), await world.node("n2", [second])]
    for version in (world.default, second):
        for _ in range(10):
            await world.submit(version=version)

    await asyncio.gather(
        *(node.claim() for node in nodes for _ in range(10)),
        *(tenants.set_limits(world.db, "default", weight=weight) for weight in range(1, 8)),
    )

    assert await world.value("SELECT count(*) FROM job_leases") == 20
    assert await world.value("SELECT count(DISTINCT weight) FROM queue_lanes") == 1


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"weight": float("nan")}, {"weight": 1e9}, {"max_running": 0}])
async def test_what_cannot_be_is_refused(world: World, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        await tenants.set_limits(world.db, "default", **wrong)

    with pytest.raises(NotFound):
        await tenants.set_limits(world.db, "nobody", weight=1)


async def test_a_key_is_made_while_a_change_of_its_tenant_waits_for_an_app(world: World, database_url: str) -> None:
    await world.submit()
    app_id = await world.value("SELECT id FROM apps")
    async with await psycopg.AsyncConnection.connect(database_url) as busy:
        await busy.execute(statement("lock_app"), {"app_id": app_id})
        changing = asyncio.create_task(tenants.set_limits(world.db, "default", weight=3))
        await until_blocked(database_url)

        async with asyncio.timeout(30):
            await keys.create(world.db, tenant="default", scopes=frozenset({"run"}))
        assert not changing.done()
        await busy.rollback()

    assert (await changing).limits.weight == 3
