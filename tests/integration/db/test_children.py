"""Jobs that a running job starts: who may, which are found again, what they count, how they end with their parent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from stoker import apps, children, job_queries, jobs, lanes
from stoker.apps import AppVersion
from stoker.children import Child, NewChild
from stoker.errors import CallRefused, JobCancelled, LeaseLost
from stoker.job_queries import JobFilters
from stoker.job_values import Claim, ErrorReport, Failed, QueueKey, Usage
from stoker.states import JobState
from tests.support.job_world import DONE, RETRYABLE, USER_ERROR, Node, World, endpoint, manifest, until_blocked

pytestmark = pytest.mark.anyio

FINAL_ERROR = Failed(ErrorReport(code="app_error", message="for good"))
LIGHT = manifest("acme/light", endpoint("/", uses_gpus=False, max_attempts=2), num_gpus=0)


async def light(world: World) -> tuple[AppVersion, Node]:
    """An app that may call others, and a node that serves it alone."""
    version = await apps.publish(world.db, LIGHT)
    node = Node(world.db, "light", (QueueKey(version.id, uses_gpus=False),))
    await node.register()
    return version, node


async def call(
    world: World, parent: Claim, version: AppVersion | None = None, key: str | None = None, **input_: Any
) -> Child:
    return await children.submit(
        world.db, parent.lease, NewChild(version=version or world.default, endpoint="/", input=input_, key=key)
    )


async def next_attempt(world: World, node: Node, parent: Claim) -> Claim:
    await jobs.release(world.db, {parent.lease: None}, "node_draining")
    return await node.take()


async def state_of(world: World, child: Child) -> str:
    found: str = await world.value("SELECT state FROM jobs WHERE id = :id", id=child.job_id)
    return found


async def test_a_child_belongs_to_its_parents_tenant_and_has_its_priority_and_is_named_in_its_events(
    world: World,
) -> None:
    version, node = await light(world)
    await world.submit(version=version, priority=3, tenant_id=await world.tenant("other"))
    parent = await node.take()

    child = await call(world, parent, steps=1)

    [row] = await world.rows("SELECT * FROM jobs WHERE id = :id", id=child.job_id)
    assert (row["tenant_id"], row["priority"], row["parent_id"]) == (parent.tenant_id, 3, parent.job_id)
    assert (row["state"], row["input"], child.created) == ("queued", {"steps": 1}, True)
    [told] = await world.rows("SELECT seq, data FROM job_events WHERE job_id = :id AND kind = 'log'", id=parent.job_id)
    assert told["seq"] == child.parent_seq
    assert told["data"]["child"] == {
        "id": str(child.job_id),
        "app": "acme/echo",
        "state": "queued",
        "has_ended": False,
    }


async def test_an_attempt_that_has_lost_its_job_starts_no_child(world: World) -> None:
    version, node = await light(world)
    await world.submit(version=version)
    lost = await node.take()
    await world.set_clock(20)
    await jobs.reap(world.db)
    before = await world.everything()

    with pytest.raises(LeaseLost):
        await call(world, lost)
    with pytest.raises(LeaseLost):
        await children.set_waiting(world.db, lost.lease, waits=True)
    await node.take()
    with pytest.raises(LeaseLost):
        await call(world, lost)

    assert [row["id"] for row in (await world.everything())["jobs"]] == [row["id"] for row in before["jobs"]]


async def test_a_second_attempt_finds_the_child_of_the_first_whether_it_waits_runs_or_has_succeeded(
    world: World,
) -> None:
    version, node = await light(world)
    worker = await world.node()
    await world.submit(version=version)
    parent = await node.take()
    started = await call(world, parent, steps=1)

    parent = await next_attempt(world, node, parent)
    queued = await call(world, parent, steps=1)
    claim = await worker.take()
    parent = await next_attempt(world, node, parent)
    running = await call(world, parent, steps=1)
    await worker.finish(claim)
    parent = await next_attempt(world, node, parent)
    succeeded = await call(world, parent, steps=1)

    found = [queued, running, succeeded]
    assert [(child.job_id, child.created) for child in found] == [(started.job_id, False)] * 3
    assert [child.state for child in found] == [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]
    assert await world.value("SELECT attempt FROM jobs WHERE id = :id", id=started.job_id) == 1


async def test_another_input_another_key_and_another_endpoint_are_other_children(world: World) -> None:
    version, node = await light(world)
    await world.submit(version=version)
    parent = await node.take()

    same = [await call(world, parent, a=1, b=2), await call(world, parent, b=2, a=1)]
    keyed = [await call(world, parent, key="x", a=1), await call(world, parent, key="x", a=2)]
    others = [
        await call(world, parent, a=2),
        await call(world, parent, key="y", a=1),
        await call(world, parent, version),
    ]

    assert same[0].job_id == same[1].job_id
    assert keyed[0].job_id == keyed[1].job_id
    assert len({child.job_id for child in [*same, *keyed, *others]}) == 5


async def test_a_child_that_failed_is_followed_by_another_when_it_is_called_again(world: World) -> None:
    version, node = await light(world)
    worker = await world.node()
    await world.submit(version=version)
    first = await node.take()
    failed = await call(world, first)
    await worker.finish(await worker.take(), USER_ERROR)
    await children.hear_ended(world.db, first.lease, failed.job_id, "acme/echo", JobState.FAILED)
    await node.finish(first, RETRYABLE)
    await world.set_clock(10)
    await jobs.promote_due(world.db)

    second = await node.take()
    next_one = await call(world, second)

    assert next_one.created
    assert next_one.job_id != failed.job_id
    generations = await world.rows("SELECT child_id, generation FROM job_children ORDER BY generation")
    assert [row["child_id"] for row in generations] == [failed.job_id, next_one.job_id]


async def test_a_failure_that_no_attempt_has_heard_of_is_the_answer_to_the_next_ones_call(world: World) -> None:
    version, node = await light(world)
    worker = await world.node()
    await world.submit(version=version)
    parent = await node.take()
    failed = await call(world, parent)
    await worker.finish(await worker.take(), USER_ERROR)
    parent = await next_attempt(world, node, parent)

    found = await call(world, parent)

    assert (found.job_id, found.state, found.created) == (failed.job_id, JobState.FAILED, False)
    await children.hear_ended(world.db, parent.lease, failed.job_id, "acme/echo", JobState.FAILED)
    assert (await call(world, parent)).created


async def test_two_calls_of_one_name_at_once_start_one_child(world: World, database_url: str) -> None:
    version, node = await light(world)
    await world.submit(version=version)
    parent = await node.take()
    holder = world.db.connect()
    async with holder as connection, connection.begin():
        # The lane of the child is held, so that the first stands in the middle of its transaction.
        await call(world, parent, key="warm")
        await connection.exec_driver_sql("SELECT FROM queue_lanes FOR UPDATE")
        both = [asyncio.create_task(call(world, parent, key="one")) for _ in range(2)]
        await until_blocked(database_url, 2)

    first, second = await asyncio.gather(*both)

    assert first.job_id == second.job_id
    assert {first.created, second.created} == {True, False}


async def test_an_endpoint_that_holds_gpus_may_not_call(world: World) -> None:
    node = await world.node()
    await world.submit()

    with pytest.raises(CallRefused, match="GPUs"):
        await call(world, await node.take())


async def test_calls_go_four_deep_and_no_deeper(world: World) -> None:
    version, node = await light(world)
    await world.submit(version=version)
    parent = root = await node.take()
    for _ in range(4):
        child = await call(world, parent, version)
        parent = await node.take()
        assert parent.job_id == child.job_id

    with pytest.raises(CallRefused, match="4 calls below"):
        await call(world, parent, version)

    assert await world.value("SELECT array_agg(DISTINCT root_id) FROM job_children") == [root.job_id]
    [tree] = await world.rows("SELECT jobs, open, depth FROM v_job_trees")
    assert tree == {"jobs": 5, "open": 5, "depth": 4}


async def test_a_waiting_parent_counts_in_no_cap(world: World) -> None:
    version, node = await light(world)
    for _ in range(2):
        await world.submit(version=version)
    await world.rows("UPDATE queue_lanes SET max_running = 1")
    parent = await node.take()
    assert await node.claim() is None

    said = [await children.set_waiting(world.db, parent.lease, waits=True) for _ in range(2)]
    beside = await node.take()
    said.append(await children.set_waiting(world.db, parent.lease, waits=False))

    assert said == [True, True, False], "whether somebody is to be rung for"

    assert await world.value("SELECT running FROM queue_lanes") == 2
    await children.set_waiting(world.db, parent.lease, waits=True)
    await node.finish(parent)
    assert await world.value("SELECT running FROM queue_lanes") == 1
    await node.finish(beside)


async def test_a_parent_is_not_charged_for_the_time_that_it_only_waited(world: World) -> None:
    version, node = await light(world)
    await world.submit(version=version)
    parent = await node.take()
    await world.set_clock(101)

    await jobs.finish(world.db, parent.lease, DONE, Usage(phases={"run": 1.0, "children": 98.0}))

    assert await world.value("SELECT job_cost FROM queue_lanes") == pytest.approx(0.75 * 1 + 0.25 * 3)


async def test_a_job_is_not_charged_for_the_time_that_it_waited_for_its_seat(world: World) -> None:
    version, node = await light(world)
    await world.submit(version=version)
    claim = await node.take()
    await world.set_clock(101)

    await jobs.finish(world.db, claim.lease, DONE, Usage(phases={"run": 1.0, "ahead": 98.0}))

    assert await world.value("SELECT job_cost FROM queue_lanes") == pytest.approx(0.75 * 1 + 0.25 * 3)


async def test_a_job_without_gpus_is_charged_as_it_runs_unless_it_has_children_to_wait_for(world: World) -> None:
    version, node = await light(world)
    for _ in range(2):
        await world.submit(version=version)
    parent, alone = await node.take(), await node.take()
    await call(world, parent)
    await world.set_clock(60)
    await node.renew(parent, alone)

    await lanes.charge_running(world.db)

    found = await world.rows("SELECT job_id, charged FROM job_leases")
    assert {row["job_id"]: row["charged"] for row in found} == {parent.job_id: 1, alone.job_id: 60}


async def test_children_are_cancelled_with_their_parent_however_deep(world: World) -> None:
    version, node = await light(world)
    worker = await world.node()
    await world.submit(version=version)
    parent = await node.take()
    running = await call(world, parent, key="runs")
    await worker.take()
    waiting = await call(world, parent, key="waits")
    middle = await call(world, parent, version)
    below = await call(world, await node.take(), key="below")
    await jobs.request_cancel(world.db, parent.job_id, None)

    done = await children.cancel_below(world.db, parent.job_id)

    assert {child.job_id: child.node_id for child in done} == {
        running.job_id: "n1",
        waiting.job_id: None,
        middle.job_id: "light",
        below.job_id: None,
    }
    assert await state_of(world, waiting) == await state_of(world, below) == "cancelled"
    assert (
        await world.value("SELECT count(*) FROM jobs WHERE state = 'running' AND cancel_requested_at IS NOT NULL") == 3
    )
    assert await children.cancel_below(world.db, parent.job_id) == []
    with pytest.raises(JobCancelled):
        await call(world, parent, key="one more")


async def test_a_cancel_ends_some_children_itself_and_the_sweep_the_rest_in_a_transaction_an_app(world: World) -> None:
    version, node = await light(world)
    worker = await world.node()
    await world.submit(version=version)
    parent = await node.take()
    for number in range(6):
        await call(world, parent, key=f"of another app {number}")
        await call(world, parent, version, key=f"of its own {number}")
    running = [await worker.take(), await node.take()]
    await jobs.request_cancel(world.db, parent.job_id, None)

    at_once = await children.cancel_below(world.db, parent.job_id, limit=4)
    swept = await children.cancel_orphans(world.db)

    assert (len(at_once), len(swept)) == (4, 8)
    assert {child.job_id for child in at_once if child.node_id} == {claim.job_id for claim in running}
    assert await world.value("SELECT count(*) FROM jobs WHERE state = 'cancelled'") == 10
    transactions = "SELECT count(DISTINCT xmin::text) FROM jobs WHERE id = ANY(:ids)"
    assert await world.value(transactions, ids=[child.job_id for child in swept]) == 2


async def test_children_end_with_a_parent_that_is_final_and_live_on_with_one_that_is_tried_again(world: World) -> None:
    version, node = await light(world)
    await world.submit(version=version)
    child = await call(world, await node.take())
    await world.set_clock(20)
    await jobs.reap(world.db)

    while_it_waits = await children.cancel_orphans(world.db)
    parent = await node.take()
    await node.finish(parent, FINAL_ERROR)
    when_it_failed = await children.cancel_orphans(world.db)

    assert while_it_waits == []
    assert [orphan.job_id for orphan in when_it_failed] == [child.job_id]
    assert await state_of(world, child) == "cancelled"
    assert await children.cancel_orphans(world.db) == []
    assert await world.value("SELECT count(*) FROM job_children WHERE NOT is_settled") == 0


async def test_what_children_took_counts_in_their_parents_usage(world: World) -> None:
    version, node = await light(world)
    worker = await world.node()
    await world.submit(version=version)
    parent = await node.take()
    for key in ("one", "two"):
        await call(world, parent, key=key)
        await worker.finish(await worker.take(), DONE, gpu_seconds=2.5)
    await node.finish(parent, gpu_seconds=0.0)

    [tree] = await world.rows("SELECT root_id, jobs, open, attempts, gpu_seconds FROM v_job_trees")

    assert tree == {"root_id": parent.job_id, "jobs": 3, "open": 0, "attempts": 3, "gpu_seconds": 5.0}
    assert await world.value("SELECT sum(gpu_seconds) FROM v_job_children") == 5.0
    family = (await job_queries.get(world.db, parent.job_id, None)).family
    assert [(child.app, child.state, child.name) for child in family.children] == [
        ("acme/echo", JobState.SUCCEEDED, "acme/echo/#one"),
        ("acme/echo", JobState.SUCCEEDED, "acme/echo/#two"),
    ]
    assert (family.below, family.gpu_seconds_below) == (2, 5.0)
    listed = await job_queries.list_jobs(world.db, None, JobFilters(parent=parent.job_id))
    assert [job.id for job in listed.jobs] == [child.id for child in reversed(family.children)]
    assert (await job_queries.get(world.db, listed.jobs[0].id, None)).family.root_id == parent.job_id


async def test_a_child_that_is_retried_by_hand_is_nobodys(world: World) -> None:
    version, node = await light(world)
    worker = await world.node()
    await world.submit(version=version)
    child = await call(world, await node.take())
    await worker.finish(await worker.take(), USER_ERROR)

    again = await jobs.retry(world.db, child.job_id, None)

    assert await world.value("SELECT parent_id FROM jobs WHERE id = :id", id=again.job_id) is None


async def test_a_claim_of_what_is_deep_enough_takes_the_deepest_and_no_job_that_nobodys_app_started(
    world: World,
) -> None:
    version, node = await light(world)
    older = await world.submit(version=version)
    await world.submit(version=version, tenant_id=await world.tenant("another"), priority=0)
    parent = await node.take()
    first = await call(world, parent, version, key="first")
    await call(world, parent, version, key="second")

    below = [await jobs.claim(world.db, replace(node.request, least_depth=1))]
    deeper = await call(world, below[0], version, key="deeper")
    below += [await jobs.claim(world.db, replace(node.request, least_depth=depth)) for depth in (3, 1, 2, 1, 1)]

    names = [claim and await world.value("SELECT depth FROM jobs WHERE id = :id", id=claim.job_id) for claim in below]
    assert names == [1, None, 2, None, 1, None]
    assert (below[0].job_id, below[2].job_id) == (first.job_id, deeper.job_id)
    assert (await node.take()).job_id == older.job_id
