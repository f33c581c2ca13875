"""What becomes of a job whose attempt failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.retries import CRASH_CAP, LONGEST_PAUSE_S, Tried, after_failure
from stoker.states import TRANSITIONS, JobState, Trigger

tried = st.builds(
    Tried,
    failures=st.integers(0, 50),
    crashes=st.integers(0, 5),
    max_attempts=st.integers(1, 60),
    cancel_asked=st.booleans(),
)


def fresh(**changes: object) -> Tried:
    return Tried(**{"failures": 0, "crashes": 0, "max_attempts": 1, "cancel_asked": False} | changes)


@pytest.mark.parametrize(
    ("history", "crash", "retryable", "expected"),
    [
        (fresh(), False, False, Trigger.FAIL),
        (fresh(), False, True, Trigger.FAIL),
        (fresh(max_attempts=2), False, False, Trigger.FAIL),
        (fresh(max_attempts=2), False, True, Trigger.RETRY_LATER),
        (fresh(max_attempts=2, failures=1), False, True, Trigger.FAIL),
        (fresh(), True, True, Trigger.RETRY_NOW),
        (fresh(crashes=1, max_attempts=9), True, True, Trigger.FAIL),
        (fresh(failures=8, max_attempts=9), True, True, Trigger.RETRY_NOW),
        (fresh(crashes=1, max_attempts=2), False, True, Trigger.RETRY_LATER),
        (fresh(max_attempts=2, cancel_asked=True), False, True, Trigger.CANCEL),
        (fresh(cancel_asked=True), False, False, Trigger.FAIL),
        (fresh(cancel_asked=True), True, True, Trigger.CANCEL),
        (fresh(crashes=1, cancel_asked=True), True, True, Trigger.CANCEL),
    ],
)
def test_what_is_decided(history: Tried, crash: bool, retryable: bool, expected: Trigger) -> None:
    assert after_failure(history, crash=crash, retryable=retryable, chance=0.5).trigger is expected


@given(tried, st.booleans(), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_decision_is_a_way_out_of_running_and_pauses_are_bounded(
    history: Tried, crash: bool, retryable: bool, chance: float
) -> None:
    decision = after_failure(history, crash=crash, retryable=retryable, chance=chance)

    assert (JobState.RUNNING, decision.trigger) in TRANSITIONS
    assert 0 <= decision.pause_s <= LONGEST_PAUSE_S
    assert (decision.pause_s > 0) == (decision.trigger is Trigger.RETRY_LATER)


@given(st.lists(st.sampled_from(["crash", "error"]), min_size=80, max_size=80), st.integers(1, 20))
def test_no_job_is_tried_for_ever(misfortunes: list[str], max_attempts: int) -> None:
    failures = crashes = tries = 0
    for misfortune in misfortunes:
        tries += 1
        history = Tried(failures, crashes, max_attempts, cancel_asked=False)
        decision = after_failure(history, crash=misfortune == "crash", retryable=True, chance=0)
        if decision.trigger is Trigger.FAIL:
            break
        crashes += misfortune == "crash"
        failures += misfortune == "error"

    assert tries <= max_attempts + CRASH_CAP - 1
