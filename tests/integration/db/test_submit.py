"""Submitting a job."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from stoker import apps, jobs, lanes
from stoker.errors import Conflict, IdempotencyConflict, InvalidRequest, NotFound, UnknownApp
from stoker.states import JobState
from tests.support.job_world import World, endpoint, manifest

pytestmark = pytest.mark.anyio


async def test_a_submitted_job_waits_with_its_first_event(world: World) -> None:
    submitted = await world.submit(input={"prompt": "a red square"}, priority=3, tags=("a", "b"))

    [job] = await world.rows("SELECT * FROM jobs")
    [event] = await world.rows("SELECT * FROM job_events")
    assert (submitted.state, submitted.created, submitted.queue) == (JobState.QUEUED, True, "acme/echo")
    assert (job["id"], job["state"], job["attempt"], job["priority"]) == (submitted.job_id, "queued", 0, 3)
    assert (job["input"], job["tags"]) == ({"prompt": "a red square"}, ["a", "b"])
    assert (event["seq"], event["data"]) == (1, {"state": "queued", "reason": "submitted"})


async def test_limits_come_from_the_endpoint_unless_the_request_names_them(world: World) -> None:
    limits = endpoint(run_timeout_s=5.0, start_timeout_s=30.0, stall_timeout_s=2.0, max_attempts=4)
    version = await apps.publish(world.db, manifest("acme/limits", limits))

    await world.submit(version=version)
    await world.submit(version=version, run_timeout_s=7.0, start_timeout_s=8.0, max_attempts=2)

    wanted = (
        "run_timeout_s, stall_timeout_s, max_attempts, extract(epoch FROM start_deadline - created_at)::int AS start"
    )
    first, second = await world.rows(f"SELECT {wanted} FROM jobs ORDER BY id")
    assert list(first.values()) == [5.0, 2.0, 4, 30]
    assert list(second.values()) == [7.0, 2.0, 2, 8]


async def test_the_same_idempotency_key_with_the_same_body_is_the_same_job(world: World) -> None:
    first = await world.submit(idempotency_key="once", input={"n": 1})
    again = await world.submit(idempotency_key="once", input={"n": 1})

    assert again.job_id == first.job_id
    assert (first.created, again.created) == (True, False)
    assert await world.value("SELECT count(*) FROM jobs") == 1


async def test_the_same_idempotency_key_with_another_body_is_refused(world: World) -> None:
    await world.submit(idempotency_key="once", input={"n": 1})

    for other in ({"input": {"n": 2}}, {"input": {"n": 1}, "priority": 1}, {"input": {"n": 1}, "tags": ("x",)}):
        with pytest.raises(IdempotencyConflict):
            await world.submit(idempotency_key="once", **other)
    assert await world.value("SELECT count(*) FROM jobs") == 1


async def test_two_tenants_may_use_the_same_idempotency_key(world: World) -> None:
    other = await world.tenant("other")

    mine = await world.submit(idempotency_key="once")
    theirs = await world.submit(idempotency_key="once", tenant_id=other)

    assert mine.job_id != theirs.job_id


async def test_the_same_idempotency_key_sent_many_times_at_once_makes_one_job(world: World) -> None:
    sent = await asyncio.gather(*(world.submit(idempotency_key="once") for _ in range(8)))

    assert len({one.job_id for one in sent}) == 1
    assert [one.created for one in sent].count(True) == 1


async def test_a_new_version_of_the_app_does_not_make_a_replay_another_request(world: World) -> None:
    first = await world.submit(idempotency_key="once")
    newer = await apps.publish(world.db, manifest("acme/echo", endpoint(), endpoint("/more")))

    assert (await world.submit(idempotency_key="once", version=newer)).job_id == first.job_id


@pytest.mark.parametrize("bad", ["nul \0", "half a pair \ud800", float("nan"), float("inf")])
async def test_input_that_postgres_cannot_hold_is_refused_and_leaves_no_row(world: World, bad: object) -> None:
    with pytest.raises(InvalidRequest):
        await world.submit(input={"text": [bad]})

    assert await world.value("SELECT count(*) FROM jobs") == 0


async def test_odd_but_lawful_input_comes_back_as_it_was(world: World) -> None:
    odd = {"text": r"C:\u0000 \\u0000 😀 é", "n": 12345678901234567890, "x": 0.1, "": None}

    await world.submit(input=odd)

    assert (await (await world.node()).take()).input == odd


async def test_an_endpoint_that_the_version_does_not_have_is_refused(world: World) -> None:
    with pytest.raises(UnknownApp):
        await world.submit(endpoint="/nowhere")


async def test_a_job_for_later_is_queued_when_it_is_due(world: World) -> None:
    node = await world.node()
    later = await world.submit(run_at=world.began + timedelta(seconds=60))

    assert later.state is JobState.SCHEDULED
    assert await node.claim() is None
    await world.set_clock(59)
    assert await jobs.promote_due(world.db) == []
    await world.set_clock(60)
    assert await jobs.promote_due(world.db) == ["acme/echo"]
    assert (await node.take()).job_id == later.job_id
    states = await world.rows("SELECT data ->> 'state' AS s, data ->> 'reason' AS r FROM job_events ORDER BY seq")
    assert [tuple(row.values()) for row in states] == [
        ("scheduled", "submitted"),
        ("queued", "due"),
        ("running", "claimed"),
    ]


async def test_a_run_at_in_the_past_is_now(world: World) -> None:
    assert (await world.submit(run_at=world.began - timedelta(hours=1))).state is JobState.QUEUED


async def test_a_retry_by_hand_is_a_new_job_that_names_the_old_one(world: World) -> None:
    node = await world.node()
    old = await world.submit(input={"n": 1}, priority=2, tags=("a",), start_timeout_s=90.0, run_timeout_s=7.0)
    with pytest.raises(Conflict):
        await jobs.retry(world.db, old.job_id, world.tenant_id)
    await node.finish(await node.take())

    new = await jobs.retry(world.db, old.job_id, world.tenant_id)

    same = "tenant_id, version_id, endpoint, input, priority, tags, start_timeout_s, run_timeout_s, max_attempts"
    before, after = await world.rows(f"SELECT {same} FROM jobs ORDER BY id")
    assert before == after
    assert await world.value("SELECT retried_from FROM jobs WHERE id = :id", id=new.job_id) == old.job_id
    assert await world.value("SELECT state FROM jobs WHERE id = :id", id=old.job_id) == "succeeded"


async def test_a_retry_is_the_keys_that_asked_and_no_better_than_it_may_ask_for(world: World) -> None:
    made = [await world.submit(priority=priority, key_id="sk_first") for priority in (2, 8)]
    for job in made:
        await jobs.request_cancel(world.db, job.job_id, None)

    again = [
        await jobs.retry(world.db, job.job_id, world.tenant_id, key_id="sk_second", best_priority=6) for job in made
    ]

    found = {row["id"]: row for row in await world.rows("SELECT id, priority, key_id FROM jobs")}
    assert [found[job.job_id]["priority"] for job in again] == [6, 8]
    assert {found[job.job_id]["key_id"] for job in again} == {"sk_second"}


async def test_a_retry_with_the_same_idempotency_key_makes_one_job(world: World) -> None:
    job = await world.submit()
    await jobs.request_cancel(world.db, job.job_id, None)

    first, again = [await jobs.retry(world.db, job.job_id, None, idempotency_key="k") for _ in range(2)]

    assert (again.job_id, first.created, again.created) == (first.job_id, True, False)


async def test_another_tenants_job_cannot_be_retried(world: World) -> None:
    job = await world.submit()

    with pytest.raises(NotFound):
        await jobs.retry(world.db, job.job_id, await world.tenant("other"))


async def test_a_submit_that_is_given_up_half_way_is_whole_or_not_there_and_harms_no_other(world: World) -> None:
    """A client hangs up while its request is being stored."""
    for steps in range(40):
        submitting = asyncio.create_task(world.submit())
        for _ in range(steps):
            await asyncio.sleep(0)
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)

    await world.submit(input={"after": True})

    assert await world.value("SELECT count(*) FROM jobs WHERE input = '{\"after\": true}'") == 1


async def test_a_key_that_is_sent_again_brings_its_lane_no_turn(world: World) -> None:
    """Else who sends an urgent job's key again and again would come before all others, whatever waits in its lane."""
    node = await world.node()
    await world.submit(priority=0, idempotency_key="urgent")
    await node.finish(await node.take())
    await world.submit(priority=9)
    await lanes.tend(world.db)
    before = await world.rows("SELECT * FROM queue_lanes")

    await world.submit(priority=0, idempotency_key="urgent")

    assert await world.rows("SELECT * FROM queue_lanes") == before
