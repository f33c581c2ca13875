"""The end of an attempt, and what a lost attempt cannot do."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from stoker import apps, job_queries, jobs, nodes
from stoker.errors import CrashedBeside, LeaseLost, StorageUnavailable
from stoker.events import EventKind
from stoker.ids import new_id
from stoker.job_values import Claim, ErrorReport, Failed
from stoker.retries import CRASH_CAP, ENGINE_PAUSE_S, EXCUSED_CAP
from stoker.states import JobState
from tests.support.job_world import CRASH, DONE, RETRYABLE, USER_ERROR, Node, World, endpoint, manifest

pytestmark = pytest.mark.anyio


def output(**changes: object) -> jobs.Output:
    given = {
        "id": new_id(),
        "name": "a picture.png",
        "pointer": "/images/0",
        "key": "t/j/1/0-a picture.png",
        "content_type": "image/png",
        "size_bytes": 12,
        "sha256": "ab" * 32,
        "token": "t" * 43,
        "metadata": {"seed": 7},
    }
    return jobs.Output(**given | changes)


async def test_success_stores_result_outputs_attempt_usage_and_the_final_event_together(world: World) -> None:
    node = await world.node()
    await world.submit()
    claim = await node.take()
    result = {"images": [{"url": "/outputs/x"}], "none": None}

    finished = await jobs.finish(
        world.db,
        claim.lease,
        jobs.Succeeded(result, (output(), output(token="u" * 43, pointer=""))),
        jobs.Usage(3.5, 2, False, {"run": 1.75}, 1 << 40),
    )

    view = await job_queries.get(world.db, claim.job_id, world.tenant_id)
    assert finished == jobs.Finished(applied=True, state=JobState.SUCCEEDED, seq=3)
    assert (view.state, view.result, view.error, view.gpu_seconds) == (JobState.SUCCEEDED, result, None, 3.5)
    assert view.finished_at is not None
    assert [(one.link, one.metadata) for one in view.outputs] == [
        (f"/outputs/{'t' * 43}/a%20picture.png", {"seed": 7}),
        (f"/outputs/{'u' * 43}/a%20picture.png", {"seed": 7}),
    ]
    [attempt] = view.attempts
    assert (attempt.outcome, attempt.warm, attempt.phases) == (
        "succeeded",
        False,
        {"queued": 0, "run": 1.75, "claimed": 0},
    )
    assert attempt.peak_memory_bytes == 1 << 40
    last = (await job_queries.events_after(world.db, claim.job_id, 2))[-1]
    assert last.data == {"state": "succeeded", "attempt": 1, "reason": "succeeded", "result": result}
    [usage] = await world.rows("SELECT attempt, gpus, gpu_seconds, warm, outcome FROM usage_records")
    assert list(usage.values()) == [1, 2, 3.5, False, "succeeded"]
    assert await world.value("SELECT count(*) FROM job_leases") == 0
    assert await world.value("SELECT running FROM queue_lanes") == 0


@pytest.mark.parametrize(("outcome", "deliveries"), [(DONE, 1), (USER_ERROR, 1), (jobs.Stopped(), 1), (CRASH, 0)])
async def test_a_final_job_with_a_webhook_owes_one_delivery(
    world: World, outcome: jobs.Outcome, deliveries: int
) -> None:
    node = await world.node()
    await world.submit(webhook_url="https://example.com/hook")

    await node.finish(await node.take(), outcome)

    owed = await world.rows("SELECT url, state, next_attempt_at = stoker_now() AS now FROM webhook_deliveries")
    assert owed == [{"url": "https://example.com/hook", "state": "pending", "now": True}] * deliveries


async def test_without_a_webhook_nothing_is_owed(world: World) -> None:
    node = await world.node()
    await world.submit()

    await node.finish(await node.take())

    assert await world.value("SELECT count(*) FROM webhook_deliveries") == 0


async def test_a_users_error_is_final_and_told_in_full(world: World) -> None:
    node = await world.node()
    job = await world.submit()

    finished = await node.finish(await node.take(), USER_ERROR)

    view = await job_queries.get(world.db, job.job_id, world.tenant_id)
    assert finished.state is JobState.FAILED
    assert view.error == {
        "code": "app_error",
        "message": "no such style",
        "hint": "The traceback is the app's own.",
        "type_name": "KeyError",
        "traceback": "",
    }
    assert (await job_queries.events_after(world.db, job.job_id, 0))[-1].data["error"] == view.error


async def test_a_retryable_error_waits_longer_each_time_until_the_endpoint_allows_no_more(world: World) -> None:
    node = await world.node()
    job = await world.submit(max_attempts=3)
    clock, pauses = 0.0, []
    for _ in range(2):
        finished = await node.finish(await node.take(), RETRYABLE)
        assert finished.state is JobState.SCHEDULED
        assert await node.claim() is None
        pauses.append(float(await world.value("SELECT extract(epoch FROM available_at - stoker_now()) FROM jobs")))
        clock += pauses[-1] + 0.001
        await world.set_clock(clock)
        assert await jobs.promote_due(world.db) == ["acme/echo"]

    last = await node.finish(await node.take(), RETRYABLE)

    assert 0.5 <= pauses[0] <= 1.0 <= pauses[1] <= 2.0
    assert last.state is JobState.FAILED
    view = await job_queries.get(world.db, job.job_id, world.tenant_id)
    assert [attempt.outcome for attempt in view.attempts] == ["failed"] * 3
    assert await world.value("SELECT failures FROM jobs") == 3


async def test_a_crash_is_tried_once_more_at_once_even_if_the_endpoint_allows_one_attempt(world: World) -> None:
    node = await world.node()
    await world.submit(max_attempts=1)

    first = await node.finish(await node.take(), CRASH)
    second = await node.finish(await node.take(), CRASH)

    assert (first.state, second.state) == (JobState.QUEUED, JobState.FAILED)
    assert await world.value("SELECT error ->> 'code' FROM jobs") == "worker_crashed"
    assert list((await world.rows("SELECT failures, crashes, attempt FROM jobs"))[0].values()) == [0, 2, 2]


async def test_what_was_not_the_jobs_doing_is_counted_as_nothing_so_often(world: World) -> None:
    node = await world.node()
    job = await world.submit(max_attempts=1)
    shared = Failed(ErrorReport.of(CrashedBeside("the process died")))

    states = [(await node.finish(await node.take(), shared)).state for _ in range(EXCUSED_CAP)]
    counted = await world.value("SELECT failures + crashes FROM jobs")
    fair_game = [(await node.finish(await node.take(), shared)).state for _ in range(CRASH_CAP)]

    assert states == [JobState.QUEUED] * EXCUSED_CAP
    assert counted == 0
    assert fair_game == [JobState.QUEUED, JobState.FAILED]
    view = await job_queries.get(world.db, job.job_id, None)
    assert [one.outcome for one in view.attempts] == ["failed"] * (EXCUSED_CAP + CRASH_CAP)


async def test_a_store_that_stayed_away_costs_a_pause_and_no_try_of_the_endpoints(world: World) -> None:
    node = await world.node()
    await world.submit(max_attempts=1)

    finished = await node.finish(await node.take(), Failed(ErrorReport.of(StorageUnavailable("away"))))

    assert finished.state is JobState.SCHEDULED
    assert await world.value("SELECT failures FROM jobs") == 0
    pause_s = await world.value("SELECT extract(epoch FROM available_at - stoker_now())::float8 FROM jobs")
    assert ENGINE_PAUSE_S / 2 <= pause_s < ENGINE_PAUSE_S


async def test_gpu_seconds_of_all_attempts_are_counted(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    await node.finish(await node.take(), CRASH, gpu_seconds=2.0)
    await node.finish(await node.take(), gpu_seconds=0.5)

    assert (await job_queries.get(world.db, job.job_id, None)).gpu_seconds == 2.5
    assert await world.value("SELECT wasted_gpu_seconds FROM v_gpu_seconds") == 2.0


async def test_the_phases_of_an_attempt_add_up_to_its_time_since_the_job_was_due(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    await world.set_clock(3)
    claim = await node.take()
    await world.set_clock(20)

    phases = {"cold_start": 8.0, "run": 5.0, "upload": 2.5}
    await jobs.finish(world.db, claim.lease, DONE, jobs.Usage(10.0, 2, False, phases, 7))

    [attempt] = (await job_queries.get(world.db, job.job_id, None)).attempts
    assert attempt.phases == {"queued": 3, "claimed": 1.5, **phases}
    [usage] = await world.rows("SELECT * FROM v_usage")
    shown = (
        "outcome",
        "attempts",
        "warm",
        "cold",
        "queued_s",
        "claimed_s",
        "cold_start_s",
        "run_s",
        "upload_s",
        "held_s",
    )
    assert [usage[name] for name in shown] == ["succeeded", 1, 0, 1, 3, 1.5, 8.0, 5.0, 2.5, 0]
    assert (usage["gpu_seconds"], usage["peak_memory_bytes"]) == (10.0, 7)


@pytest.mark.parametrize("lose", ["reaper", "new boot"])
async def test_an_attempt_whose_node_was_lost_held_its_gpus_until_it_was_last_heard_of(world: World, lose: str) -> None:
    node = await world.node()
    job = await world.submit()
    claim = await node.take()
    await world.set_clock(6.5)
    await node.renew(claim)
    await world.set_clock(30)

    await (jobs.reap(world.db) if lose == "reaper" else world.node(node.id))

    [usage] = await world.rows("SELECT attempt, gpus, gpu_seconds, warm, outcome FROM usage_records")
    assert list(usage.values()) == [1, 2, 13.0, None, "lease_lost"]
    [attempt] = (await job_queries.get(world.db, job.job_id, None)).attempts
    assert (attempt.gpu_seconds, attempt.warm, attempt.phases) == (13.0, None, {"queued": 0, "held": 6.5})
    [sums] = await world.rows(
        "SELECT gpu_seconds, useful_gpu_seconds, wasted_gpu_seconds, cold_starts FROM v_gpu_seconds"
    )
    assert list(sums.values()) == [13.0, 0.0, 13.0, 0]


async def test_a_lost_attempt_held_as_many_gpus_as_its_runner_has(world: World) -> None:
    """A node may run an app on another number of GPUs than its manifest names."""
    node = await world.node()
    await nodes.report_runners(
        world.db, node.id, node.boot_id, [nodes.RunnerInfo("r0", "acme/echo", "warm", 4, [], [])]
    )
    await world.submit()
    claim = await node.take()
    await world.set_clock(5)
    await node.renew(claim)
    await world.set_clock(30)

    await jobs.reap(world.db)

    assert await world.rows("SELECT gpus, gpu_seconds FROM usage_records") == [{"gpus": 4, "gpu_seconds": 20.0}]


async def test_a_node_that_gives_a_job_back_says_what_it_took(world: World) -> None:
    node = await world.node()
    await world.submit()
    claim = await node.take()
    await world.set_clock(5)

    await jobs.release(world.db, {claim.lease: jobs.Usage(3.0, 2, True, {"run": 1.5})}, "drain")

    [usage] = await world.rows("SELECT gpus, gpu_seconds, warm, outcome FROM usage_records")
    assert list(usage.values()) == [2, 3.0, True, "released"]


async def test_a_job_of_no_gpus_whose_node_was_lost_took_none(world: World) -> None:
    version = await apps.publish(world.db, manifest("acme/cpu", endpoint(uses_gpus=False)))
    await world.submit(version=version)
    await (await world.node(versions=[version])).take()
    await world.set_clock(16)

    await jobs.reap(world.db)

    assert await world.rows("SELECT gpus, gpu_seconds FROM usage_records") == [{"gpus": 0, "gpu_seconds": 0.0}]


async def test_what_postgres_cannot_hold_is_replaced_in_results_and_events(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    claim = await node.take()

    await jobs.append_events(world.db, claim.lease, [(EventKind.LOG, {"message": "a\0b\ud800"})])
    await node.finish(claim, jobs.Succeeded({"loss": float("nan"), "text": "a\0b"}))

    view = await job_queries.get(world.db, job.job_id, None)
    assert view.result == {"loss": None, "text": "a\ufffdb"}
    assert (await job_queries.events_after(world.db, job.job_id, 2))[0].data == {"message": "a\ufffdb?"}


async def test_events_of_a_job_are_numbered_without_a_gap(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    claim = await node.take()

    last = [
        await jobs.append_events(world.db, claim.lease, [(EventKind.LOG, {"n": n}), (EventKind.OUTPUT, {"n": n})])
        for n in range(3)
    ]
    finished = await node.finish(claim)

    events = await job_queries.events_after(world.db, job.job_id, 0)
    assert (last, finished.seq) == ([4, 6, 8], 9)
    assert [str(event.id) for event in events] == ["1.0.0", *(f"{seq}.1.0" for seq in range(2, 10))]
    assert [event.data["n"] for event in events[2:8]] == [0, 0, 1, 1, 2, 2]
    assert [event.id.seq for event in await job_queries.events_after(world.db, job.job_id, 4, limit=2)] == [5, 6]


async def test_events_sent_at_the_same_time_get_numbers_of_their_own(world: World) -> None:
    node = await world.node()
    await world.submit()
    claim = await node.take()

    seqs = await asyncio.gather(
        *(jobs.append_events(world.db, claim.lease, [(EventKind.LOG, {"n": n})]) for n in range(8))
    )

    assert sorted(seqs) == list(range(3, 11))


async def lose_by_reaper(world: World, node: Node, claim: Claim) -> None:
    await world.set_clock(16)
    await jobs.reap(world.db)


async def lose_by_new_boot(world: World, node: Node, claim: Claim) -> None:
    await world.node(node.id)


async def lose_by_release(world: World, node: Node, claim: Claim) -> None:
    await jobs.release(world.db, {claim.lease: None}, "drain")


async def lose_to_a_second_attempt(world: World, node: Node, claim: Claim) -> None:
    await lose_by_reaper(world, node, claim)
    await (await world.node("n2")).take()


async def lose_to_the_same_node(world: World, node: Node, claim: Claim) -> None:
    await lose_by_reaper(world, node, claim)
    assert (await node.take()).attempt == 2


async def lose_by_finishing(world: World, node: Node, claim: Claim) -> None:
    await node.finish(claim)


LOSSES = [
    *(lose_by_reaper, lose_by_new_boot, lose_by_release, lose_by_finishing),
    *(lose_to_a_second_attempt, lose_to_the_same_node),
]


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_lost_attempt_changes_nothing_anywhere(world: World, lose: object) -> None:
    node = await world.node()
    await world.submit(webhook_url="https://example.com")
    claim = await node.take()
    await lose(world, node, claim)
    before = await world.everything()

    for outcome in (jobs.Succeeded({}, (output(),)), USER_ERROR, RETRYABLE, CRASH, jobs.Stopped()):
        assert await node.finish(claim, outcome) == jobs.Finished(applied=False)
    with pytest.raises(LeaseLost):
        await jobs.append_events(world.db, claim.lease, [(EventKind.LOG, {})])
    renewal = await node.renew(claim, progress={claim.job_id: {"step": 9}})
    assert await jobs.release(world.db, {claim.lease: None}, "drain") == []

    assert renewal.lost == {claim.lease}
    assert await world.everything() == before


async def test_a_late_worker_cannot_finish_a_job_that_was_cancelled(world: World) -> None:
    node = await world.node()
    job = await world.submit()
    claim = await node.take()
    await jobs.request_cancel(world.db, job.job_id, None)
    await node.finish(claim, jobs.Stopped())

    assert (await node.finish(claim)).applied is False
    assert (await job_queries.get(world.db, job.job_id, None)).state is JobState.CANCELLED


async def test_two_finishes_of_one_attempt_at_once_count_once(world: World) -> None:
    node = await world.node()
    await world.submit()
    claim = await node.take()

    finishes = await asyncio.gather(*(node.finish(claim) for _ in range(4)))

    assert sorted(one.applied for one in finishes) == [False, False, False, True]


async def test_a_job_that_does_not_exist_cannot_be_finished(world: World) -> None:
    node = await world.node()
    nothing = jobs.Lease(UUID(int=1), 1)

    assert (await jobs.finish(world.db, nothing, DONE, jobs.Usage(), then=node.request)).applied is False
