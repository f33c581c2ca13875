"""Where a job stands in its lane: what its owner sees, and what admins see."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from stoker import job_queries, jobs
from tests.support.job_world import World

pytestmark = pytest.mark.anyio


async def position(world: World, job_id: UUID) -> int | None:
    return (await job_queries.get(world.db, job_id, None)).queue_position


async def test_a_queued_job_knows_how_many_of_its_lane_come_before_it(world: World) -> None:
    other = await world.tenant("other")
    submitted = [await world.submit(priority=priority) for priority in (5, 9, 0, 5)]
    theirs = await world.submit(tenant_id=other, priority=0)

    assert [await position(world, job.job_id) for job in submitted] == [1, 3, 0, 2]
    assert await position(world, theirs.job_id) == 0


async def test_positions_move_up_as_jobs_leave_the_queue(world: World) -> None:
    node = await world.node()
    first, second, third, last = [await world.submit() for _ in range(4)]
    await node.take()
    await jobs.request_cancel(world.db, second.job_id, None)

    assert [await position(world, job.job_id) for job in (first, second, third, last)] == [None, None, 0, 1]


async def test_a_job_that_is_not_due_has_no_position_and_is_in_nobodys_way(world: World) -> None:
    later = await world.submit(priority=0, run_at=world.began + timedelta(hours=1))
    now = await world.submit()

    assert (await position(world, later.job_id), await position(world, now.job_id)) == (None, 0)


async def test_a_position_is_the_order_in_which_the_lane_is_claimed(world: World) -> None:
    node = await world.node()
    submitted = [await world.submit(priority=priority) for priority in (5, 3, 5, 0, 3, 9)]
    told = {job.job_id: await position(world, job.job_id) for job in submitted}

    taken = [(await node.take()).job_id for _ in submitted]

    assert [told[job_id] for job_id in taken] == list(range(6))


async def test_counting_stops_where_it_becomes_dear(world: World) -> None:
    await world.submit(priority=0)
    await world.rows(
        "INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, max_attempts, "
        "run_timeout_s, available_at) SELECT gen_random_uuid(), tenant_id, version_id, uses_gpus, endpoint, kind, "
        "state, 1, input, max_attempts, run_timeout_s, available_at FROM jobs, generate_series(1, 1500)"
    )
    last = await world.submit(priority=9)

    assert await position(world, last.job_id) == job_queries.COUNTED == 1000
    await world.rows("DELETE FROM jobs WHERE priority = 1")


async def test_admins_see_every_queued_job_with_its_position(world: World) -> None:
    other = await world.tenant("other")
    mine = [await world.submit(priority=priority) for priority in (5, 0)]
    theirs = await world.submit(tenant_id=other)
    await world.set_clock(3)

    rows = await world.rows(
        "SELECT job_id, tenant, position, waited_s FROM v_queue_positions ORDER BY tenant, position"
    )

    assert rows == [
        {"job_id": mine[1].job_id, "tenant": "default", "position": 0, "waited_s": 3.0},
        {"job_id": mine[0].job_id, "tenant": "default", "position": 1, "waited_s": 3.0},
        {"job_id": theirs.job_id, "tenant": "other", "position": 0, "waited_s": 3.0},
    ]
