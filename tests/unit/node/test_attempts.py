"""When an attempt stops, and what is recorded of it."""

from __future__ import annotations

import asyncio

import pytest

from stoker.errors import AppError, JobCancelled, StokerError, WorkerCrashed
from stoker.jobs import Failed, Stopped
from stoker.settings import NodeSettings
from tests.support.claims import a_claim
from worker_node.attempt import (
    KILLING_S,
    Attempt,
    Attempts,
    StopReason,
    kill_after_s,
    outcome_without_result,
    safe_until,
)
from worker_node.host_call import CANCEL_GRACE_S, CANCEL_REBUILD_S

pytestmark = pytest.mark.anyio

FAR = 1e9


async def let_due_timers_ring() -> None:
    rung = asyncio.Event()
    asyncio.get_running_loop().call_later(0.0, rung.set)
    await rung.wait()


def test_a_node_with_the_default_lease_has_time_to_kill_what_does_not_stop() -> None:
    lease_s = NodeSettings.model_fields["lease_s"].default

    assert lease_s - safe_until(0.0, lease_s) > CANCEL_GRACE_S + CANCEL_REBUILD_S


@pytest.mark.parametrize("lease_s", [3.0, 6.0, 15.0, 600.0])
async def test_work_stops_before_the_lease_ends_but_not_before_half_of_it(lease_s: float) -> None:
    assert lease_s / 2 < safe_until(0.0, lease_s) < lease_s


@pytest.mark.parametrize(
    ("reason", "error", "expected"),
    [
        (None, AppError("no"), "app_error"),
        (None, WorkerCrashed("gone"), "worker_crashed"),
        (None, JobCancelled("by itself"), Stopped),
        (StopReason.CANCEL, JobCancelled("asked"), Stopped),
        (StopReason.CANCEL, WorkerCrashed("killed for it"), Stopped),
        (StopReason.RUN_TIMEOUT, JobCancelled("late"), "run_timeout"),
        (StopReason.STALL_TIMEOUT, JobCancelled("hung"), "stall_timeout"),
        (StopReason.NOT_RENEWED, JobCancelled("in the dark"), "unavailable"),
    ],
)
async def test_what_is_recorded_follows_from_why_it_stopped(
    reason: StopReason | None, error: StokerError, expected: str | type
) -> None:
    outcome = outcome_without_result(reason, error, a_claim(stall_timeout_s=5))

    if isinstance(outcome, Failed):
        assert outcome.error.code == expected
    else:
        assert isinstance(outcome, Stopped)
        assert expected is Stopped


async def test_a_lost_lease_overrides_every_other_reason() -> None:
    attempt = Attempt(a_claim(), safe_until=FAR)

    attempt.stop(StopReason.CANCEL)
    attempt.stop(StopReason.RUN_TIMEOUT)
    assert attempt.reason is StopReason.CANCEL

    attempt.stop(StopReason.LEASE_LOST)
    assert attempt.reason is StopReason.LEASE_LOST
    attempt.run_ended(has_result=True)
    assert attempt.lease_lost.is_set()
    attempt.end()


async def test_an_attempt_that_is_not_renewed_stops_by_itself_and_in_a_hurry() -> None:
    attempt = Attempt(a_claim(), safe_until=asyncio.get_running_loop().time())

    await attempt.stopped.wait()
    attempt.renew(FAR)

    assert attempt.reason is StopReason.NOT_RENEWED
    assert attempt.hurried.is_set()
    assert not attempt.lease_lost.is_set(), "whether another has the job is for Postgres to say"


async def test_a_result_may_be_recorded_after_the_lease_would_have_ended() -> None:
    """Nothing runs any more; Postgres takes the result or refuses it."""
    attempt = Attempt(a_claim(), safe_until=asyncio.get_running_loop().time())
    attempt.run_ended(has_result=True)

    attempt.renew(0.0)
    await let_due_timers_ring()

    assert (attempt.reason, attempt.stopped.is_set()) == (None, False)
    attempt.end()


async def test_work_that_is_being_stopped_is_hurried_when_its_lease_is_about_to_end() -> None:
    attempt = Attempt(a_claim(), safe_until=FAR)
    attempt.stop(StopReason.CANCEL)
    was_hurried = attempt.hurried.is_set()

    attempt.renew(0.0)
    await attempt.hurried.wait()

    assert not was_hurried
    assert attempt.reason is StopReason.CANCEL


@pytest.mark.parametrize("lease_s", [0.5, 3.0, 6.0, 13.0, 15.0, 600.0])
def test_work_that_does_not_stop_is_killed_before_the_lease_ends_however_short(lease_s: float) -> None:
    killed_at = safe_until(0.0, lease_s) + kill_after_s(lease_s)

    assert killed_at + min(KILLING_S, lease_s * 0.4) <= lease_s


async def test_a_stop_that_comes_after_the_result_does_not_spoil_it() -> None:
    attempt = Attempt(a_claim(), safe_until=FAR)
    attempt.stop(StopReason.CANCEL)

    attempt.run_ended(has_result=True)

    assert (attempt.reason, attempt.stopped.is_set()) == (None, False)
    attempt.end()


async def test_time_limits_count_from_when_the_ranks_are_there() -> None:
    attempt = Attempt(a_claim(run_timeout_s=0.0), safe_until=FAR)
    attempt.progressed()
    assert not attempt.stopped.is_set()

    attempt.start_clocks()
    await attempt.stopped.wait()

    assert attempt.reason is StopReason.RUN_TIMEOUT
    attempt.end()


async def test_the_time_in_which_ranks_start_is_not_the_endpoints() -> None:
    attempt = Attempt(a_claim(run_timeout_s=0.0, stall_timeout_s=0.0), safe_until=FAR)
    attempt.start_clocks()
    attempt.pause_clocks()
    await let_due_timers_ring()
    assert not attempt.stopped.is_set()

    attempt.start_clocks()
    await attempt.stopped.wait()

    assert attempt.reason is StopReason.RUN_TIMEOUT
    attempt.end()


async def test_the_clocks_of_a_run_that_is_over_stay_still() -> None:
    attempt = Attempt(a_claim(run_timeout_s=0.0), safe_until=FAR)
    attempt.run_ended(has_result=True)

    attempt.pause_clocks()
    attempt.start_clocks()
    await let_due_timers_ring()

    assert not attempt.stopped.is_set()
    attempt.end()


async def test_silence_is_ended_by_the_stall_timeout() -> None:
    attempt = Attempt(a_claim(stall_timeout_s=0.0), safe_until=FAR)

    attempt.start_clocks()
    await attempt.stopped.wait()

    assert attempt.reason is StopReason.STALL_TIMEOUT
    attempt.end()


async def test_a_nudge_reaches_the_attempt_of_that_job_alone() -> None:
    attempts, one, other = Attempts(), Attempt(a_claim(), safe_until=FAR), Attempt(a_claim(), safe_until=FAR)
    attempts.add(one)
    attempts.add(other)

    attempts.cancel(one.claim.job_id)

    assert (one.reason, other.reason) == (StopReason.CANCEL, None)
    for attempt in attempts:
        attempts.remove(attempt)
    assert len(attempts) == 0
