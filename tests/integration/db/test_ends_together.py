"""Attempts that end at the same time on a node."""

from __future__ import annotations

import asyncio
import itertools

import psycopg
import pytest

from stoker import jobs
from stoker.jobs import End, Lease
from stoker.states import JobState
from tests.support.job_world import DONE, World, until_blocked

pytestmark = pytest.mark.anyio


async def test_attempts_that_end_together_are_each_recorded_with_a_claim_of_its_own(world: World) -> None:
    node = await world.node()
    for _ in range(5):
        await world.submit()
    first, second, third = [await node.take() for _ in range(3)]
    lost = Lease(third.job_id, third.attempt + 1)
    stopped = End(second.lease, jobs.Stopped(), jobs.Usage())

    ends = [End(first.lease, DONE, jobs.Usage(), node.request), stopped, End(lost, DONE, jobs.Usage(), node.request)]
    done, cancelled, refused = await jobs.finish_alike(world.db, ends)

    assert (done.applied, done.state, done.next is not None) == (True, JobState.SUCCEEDED, True)
    assert (cancelled.state, cancelled.next) == (JobState.CANCELLED, None)
    assert (refused.applied, refused.next) == (False, None)
    assert await world.value("SELECT count(*) FROM job_leases") == 2


async def test_attempts_that_end_together_do_not_meet_a_heartbeat_half_way(world: World, database_url: str) -> None:
    node = await world.node()
    for _ in range(4):
        await jobs.submit_alike(world.db, [(new, new.row()) for new in (world.new_job() for _ in range(500))])
    await world.rows("ANALYZE")  # whose plan is not the one of a small table
    await world.db.dispose()
    lock = "SELECT 1 FROM job_leases WHERE job_id = %s FOR NO KEY UPDATE"
    for order in itertools.permutations(range(3)):
        held = sorted([await node.take() for _ in range(3)], key=lambda claim: claim.job_id)
        async with await psycopg.AsyncConnection.connect(database_url) as heartbeat:
            await heartbeat.execute(lock, [held[0].job_id])
            ends = [End(held[at].lease, DONE, jobs.Usage()) for at in order]
            ending = asyncio.create_task(jobs.finish_alike(world.db, ends))
            await until_blocked(database_url)
            for claim in held[1:]:
                await heartbeat.execute(lock, [claim.job_id])
            await heartbeat.commit()
        assert [finished.applied for finished in await ending] == [True] * 3
