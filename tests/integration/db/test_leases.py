"""Heartbeats, lost nodes, drains."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import uuid4

import psycopg
import pytest

from stoker import job_queries, jobs, nodes
from stoker.database import transaction
from stoker.errors import LeaseLost
from stoker.events import EventKind
from stoker.sql import statement
from stoker.states import JobState
from tests.support.job_world import World, until_blocked

pytestmark = pytest.mark.anyio


async def test_a_heartbeat_renews_all_leases_and_keeps_the_newest_progress(world: World) -> None:
    node = await world.node()
    submitted = [await world.submit() for _ in range(3)]
    claims = [await node.take() for _ in submitted]
    await world.set_clock(10)

    renewal = await node.renew(*claims, progress={claims[1].job_id: {"step": 3, "total": 20}})

    assert renewal == jobs.Renewal(frozenset(), frozenset())
    assert await world.value("SELECT min(extract(epoch FROM expires_at - stoker_now())::int) FROM job_leases") == 15
    assert (await job_queries.get(world.db, claims[1].job_id, None)).progress == {"step": 3, "total": 20}
    assert (await job_queries.get(world.db, claims[0].job_id, None)).progress is None
    assert await world.value("SELECT heartbeat_at = stoker_now() FROM nodes") is True


async def test_a_heartbeat_without_leases_says_that_the_node_lives(world: World) -> None:
    node = await world.node()
    await world.set_clock(16)
    assert [one.is_live for one in await nodes.list_nodes(world.db)] == [False]

    await node.renew()

    assert [one.is_live for one in await nodes.list_nodes(world.db)] == [True]


async def test_a_heartbeat_brings_the_wish_to_cancel(world: World) -> None:
    node = await world.node()
    first, second = await world.submit(), await world.submit()
    claims = [await node.take(), await node.take()]
    await jobs.request_cancel(world.db, second.job_id, world.tenant_id)

    renewal = await node.renew(*claims)

    assert renewal.cancelled == {claims[1].lease}
    assert claims[0].job_id == first.job_id


async def test_a_former_boot_renews_nothing(world: World) -> None:
    former = await world.node()
    await former.register()
    newer = await world.node()
    await world.submit()
    claim = await newer.take()

    await world.set_clock(16)
    assert await former.renew(claim) == jobs.Renewal(lost=frozenset({claim.lease}), cancelled=frozenset())
    # Nor does it say that the node lives.
    assert [one.is_live for one in await nodes.list_nodes(world.db)] == [False]


async def test_an_event_that_comes_while_its_attempt_ends_is_refused(world: World, database_url: str) -> None:
    """The end is under way, and waits for the head of the job; nothing may be numbered after its event."""
    node = await world.node()
    job = await world.submit()
    claim = await node.take()
    async with await psycopg.AsyncConnection.connect(database_url) as holding:
        await holding.execute("SELECT FROM job_heads FOR UPDATE")
        ending = asyncio.create_task(node.finish(claim))
        await until_blocked(database_url)
        saying = asyncio.create_task(jobs.append_events(world.db, claim.lease, [(EventKind.LOG, {"message": "x"})]))
        await until_blocked(database_url, sessions=2)
        await holding.commit()
        assert (await ending).applied
        with pytest.raises(LeaseLost):
            await saying

    kinds = [event.kind for event in await job_queries.events_after(world.db, job.job_id, 0)]
    assert kinds == [EventKind.STATE] * 3


async def test_a_job_whose_lease_is_lost_goes_back_to_the_queue_at_once(world: World) -> None:
    node = await world.node()
    job = await world.submit(max_attempts=1)
    await node.take()
    await world.set_clock(15)
    assert await jobs.reap(world.db) == []

    await world.set_clock(15.001)
    [moved] = await jobs.reap(world.db)

    assert moved == jobs.Moved(job.job_id, JobState.QUEUED, 3, "acme/echo", 1)
    assert (await node.take()).attempt == 2
    view = await job_queries.get(world.db, job.job_id, None)
    assert [one.outcome for one in view.attempts] == ["lease_lost", None]
    assert view.attempts[0].error is not None
    assert view.attempts[0].error["code"] == "node_lost"
    reasons = [event.data["reason"] for event in await job_queries.events_after(world.db, job.job_id, 0)]
    assert reasons == ["submitted", "claimed", "lease_lost", "claimed"]


async def test_a_job_that_loses_two_nodes_is_not_given_a_third(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    await node.take()
    await world.set_clock(16)
    await jobs.reap(world.db)
    await node.take()
    await world.set_clock(32)

    [moved] = await jobs.reap(world.db)

    view = await job_queries.get(world.db, job.job_id, None)
    assert moved.state is view.state is JobState.FAILED
    assert view.error is not None
    assert view.error["code"] == "node_lost"


async def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    await node.take()
    await jobs.request_cancel(world.db, job.job_id, None)
    await world.set_clock(16)

    [moved] = await jobs.reap(world.db)

    assert moved.state is JobState.CANCELLED
    assert await world.value("SELECT outcome FROM job_attempts") == "lease_lost"


async def test_a_job_that_is_not_to_be_retried_ends_with_its_lease(world: World) -> None:
    node = await world.node()
    await world.submit(no_retry=True, max_attempts=3)
    await node.take()
    await world.set_clock(16)

    [moved] = await jobs.reap(world.db)

    assert moved.state is JobState.FAILED
    assert await world.value("SELECT error ->> 'code' FROM jobs") == "node_lost"


async def test_the_reaper_takes_back_jobs_of_many_apps_and_respects_its_limit(world: World) -> None:
    node = await world.node()
    for _ in range(5):
        await world.submit()
    for _ in range(5):
        await node.take()
    await world.set_clock(16)

    assert [len(await jobs.reap(world.db, limit=3)) for _ in range(3)] == [3, 2, 0]


async def test_many_reapers_at_once_take_each_job_back_once(world: World) -> None:
    node = await world.node()
    for _ in range(6):
        await world.submit()
    for _ in range(6):
        await node.take()
    await world.set_clock(16)

    reaped = await asyncio.gather(*(jobs.reap(world.db) for _ in range(4)))

    moved = [one.job_id for each in reaped for one in each]
    assert (len(moved), len(set(moved))) == (6, 6)


@pytest.mark.parametrize("last_first", [False, True])
async def test_a_reaper_and_who_acts_on_the_same_lanes_do_not_lock_each_other_out(
    world: World, database_url: str, last_first: bool
) -> None:
    """A node that ends a job of one lane takes its next one from another, in whatever order: behind the app's lock."""
    node = await world.node()
    for tenant_id in (world.tenant_id, await world.tenant("other")):
        await world.submit(tenant_id=tenant_id)
        await node.take()
    await world.set_clock(16)
    lanes = await world.rows("SELECT app_id, tenant_id FROM queue_lanes ORDER BY tenant_id")
    touch = "UPDATE queue_lanes SET vtime = vtime WHERE tenant_id = %(tenant_id)s"
    async with await psycopg.AsyncConnection.connect(database_url) as acting:
        await acting.execute(statement("lock_app"), lanes[0])
        await acting.execute(touch, lanes[-1 if last_first else 0])
        reaping = asyncio.create_task(jobs.reap(world.db))
        await until_blocked(database_url)
        await acting.execute(touch, lanes[0 if last_first else -1])
        await acting.commit()

        assert len(await reaping) == 2


@pytest.mark.parametrize("who", ["reaper", "heartbeat"])
async def test_reapers_and_heartbeats_that_meet_do_not_lock_each_other_out(
    world: World, database_url: str, who: str
) -> None:
    """All take leases in the order of their jobs: who has the first one gets the others."""
    node = await world.node()
    for _ in range(3):
        await world.submit()
    claims = [await node.take() for _ in range(3)]
    await world.set_clock(16)
    leases = await world.rows("SELECT job_id FROM job_leases ORDER BY job_id")
    hold = "SELECT FROM job_leases WHERE job_id = %(job_id)s FOR UPDATE"
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute(hold, leases[0])
        acting = asyncio.create_task(jobs.reap(world.db) if who == "reaper" else node.renew(*claims))
        await until_blocked(database_url)
        for lease in leases[1:]:
            await other.execute(hold, lease)
        await other.commit()

        await acting


async def test_a_lease_renewed_while_the_reaper_waits_for_it_stays(world: World, database_url: str) -> None:
    """The reaper finds the lease expired, but its node is renewing it at this moment."""
    node = await world.node()
    await world.submit()
    claim = await node.take()
    await world.set_clock(16)
    async with await psycopg.AsyncConnection.connect(database_url) as renewing:
        await renewing.execute("UPDATE job_leases SET expires_at = stoker_now() + interval '15 s'")
        reaping = asyncio.create_task(jobs.reap(world.db))
        await until_blocked(database_url)
        await renewing.commit()
        assert await reaping == []

    assert (await node.finish(claim)).applied


async def test_a_lease_past_its_end_that_nobody_took_can_be_renewed(world: World) -> None:
    """A short outage of Postgres must not throw hours of work away."""
    node = await world.node()
    await world.submit()
    claim = await node.take()
    await world.set_clock(40)

    assert (await node.renew(claim)).lost == frozenset()
    assert await jobs.reap(world.db) == []


async def test_a_node_that_froze_in_the_middle_of_a_heartbeat_does_not_keep_its_leases(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    await node.take()
    await world.set_clock(15.001)

    async def reap_beside_a_frozen_session() -> None:
        async with transaction(world.db) as frozen:
            await (await frozen.execute("SELECT FROM job_leases FOR UPDATE")).fetchall()
            for _ in range(2):  # the first gives up waiting for the lock, as the control loop's would
                with contextlib.suppress(psycopg.errors.LockNotAvailable):
                    moved.extend(await jobs.reap(world.db))

    moved: list[jobs.Moved] = []
    with pytest.raises(psycopg.OperationalError, match=r"transaction timeout|closed"):
        await reap_beside_a_frozen_session()

    assert [(one.job_id, one.state) for one in moved] == [(job.job_id, JobState.QUEUED)]


async def test_a_restarted_node_gives_back_at_once_what_its_former_boot_held(world: World) -> None:
    former, elsewhere = await world.node(), await world.node("n2")
    mine, other = await world.submit(), await world.submit()
    await former.take()
    await elsewhere.take()
    former.boot_id = uuid4()

    assert await former.register() == [mine.job_id]

    states = await world.rows("SELECT id, state FROM jobs ORDER BY id")
    assert states == [{"id": mine.job_id, "state": "queued"}, {"id": other.job_id, "state": "running"}]


async def test_a_restarted_node_does_its_job_again_if_no_other_can(world: World) -> None:
    node = await world.node()
    await world.submit()
    await node.take()
    node.boot_id = uuid4()
    await node.register()

    assert (await node.take()).attempt == 2


async def test_registering_the_same_boot_again_gives_nothing_back(world: World) -> None:
    node = await world.node()
    await world.submit()
    await node.take()

    assert await node.register() == []


async def test_a_draining_node_gives_jobs_back_without_using_up_a_try(world: World) -> None:
    node, other = await world.node(), await world.node("n2")
    job = await world.submit(max_attempts=1)
    claim = await node.take()

    [moved] = await jobs.release(world.db, {claim.lease: None}, "drain")

    assert (moved.state, moved.queue) == (JobState.QUEUED, "acme/echo")
    assert list((await world.rows("SELECT failures, crashes, avoid_node FROM jobs"))[0].values()) == [0, 0, None]
    again = await other.take()
    assert (again.job_id, again.attempt) == (job.job_id, 2)
    assert await world.value("SELECT data ->> 'reason' FROM job_events WHERE seq = 3") == "drain"


async def test_a_job_that_was_to_be_cancelled_is_cancelled_when_its_node_drains(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    claim = await node.take()
    await jobs.request_cancel(world.db, job.job_id, None)

    [moved] = await jobs.release(world.db, {claim.lease: None}, "drain")

    assert moved.state is JobState.CANCELLED
