"""What becomes of a job whose attempt failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import CrashedBeside, StorageUnavailable, Unavailable
from stoker.retries import (
    CRASH_CAP,
    ENGINE_PAUSE_S,
    EXCUSED,
    EXCUSED_CAP,
    LONGEST_PAUSE_S,
    Decision,
    Tried,
    after_failure,
)
from stoker.states import TRANSITIONS, JobState, Trigger
from worker_node.attempt import InternalError

tried = st.builds(
    Tried,
    failures=st.integers(0, 50),
    crashes=st.integers(0, 5),
    excused=st.integers(0, 8),
    max_attempts=st.integers(1, 60),
    cancel_asked=st.booleans(),
)


codes = st.sampled_from(["app_error", *EXCUSED])


def fresh(**changes: object) -> Tried:
    return Tried(**{"failures": 0, "crashes": 0, "excused": 0, "max_attempts": 1, "cancel_asked": False} | changes)


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
        (fresh(no_retry=True, max_attempts=3), False, True, Trigger.FAIL),
        (fresh(no_retry=True), True, True, Trigger.FAIL),
        (fresh(no_retry=True, cancel_asked=True), True, True, Trigger.CANCEL),
    ],
)
def test_what_is_decided(history: Tried, crash: bool, retryable: bool, expected: Trigger) -> None:
    assert after_failure(history, code="app_error", crash=crash, retryable=retryable, chance=0.5).trigger is expected


@pytest.mark.parametrize(
    ("history", "code", "crash", "expected"),
    [
        (fresh(crashes=1), "crashed_beside", True, Decision(Trigger.RETRY_NOW, counts=False)),
        (fresh(crashes=1, excused=EXCUSED_CAP), "crashed_beside", True, Decision(Trigger.FAIL)),
        (fresh(excused=EXCUSED_CAP), "crashed_beside", True, Decision(Trigger.RETRY_NOW)),
        (fresh(), "storage_unavailable", False, Decision(Trigger.RETRY_LATER, ENGINE_PAUSE_S * 0.75, counts=False)),
        (fresh(excused=2), "unavailable", False, Decision(Trigger.RETRY_LATER, ENGINE_PAUSE_S * 3, counts=False)),
        (fresh(), "internal_error", False, Decision(Trigger.RETRY_LATER, ENGINE_PAUSE_S * 0.75, counts=False)),
        (fresh(excused=1), "internal_error", False, Decision(Trigger.FAIL)),
        (fresh(excused=EXCUSED_CAP), "storage_unavailable", False, Decision(Trigger.FAIL)),
        (fresh(cancel_asked=True), "crashed_beside", True, Decision(Trigger.CANCEL)),
        (fresh(cancel_asked=True), "unavailable", False, Decision(Trigger.CANCEL)),
        (fresh(no_retry=True), "crashed_beside", True, Decision(Trigger.FAIL)),
        (fresh(no_retry=True), "storage_unavailable", False, Decision(Trigger.FAIL)),
    ],
)
def test_what_is_not_the_jobs_doing_is_excused_so_often(
    history: Tried, code: str, crash: bool, expected: Decision
) -> None:
    assert after_failure(history, code=code, crash=crash, retryable=True, chance=0.5) == expected


def test_every_excuse_is_the_code_of_an_error() -> None:
    codes = {kind.code for kind in (CrashedBeside, InternalError, StorageUnavailable, Unavailable)}

    assert sorted(codes) == EXCUSED


@given(tried, codes, st.booleans(), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_decision_is_a_way_out_of_running_and_pauses_are_bounded(
    history: Tried, code: str, crash: bool, retryable: bool, chance: float
) -> None:
    decision = after_failure(history, code=code, crash=crash, retryable=retryable, chance=chance)

    assert (JobState.RUNNING, decision.trigger) in TRANSITIONS
    assert 0 <= decision.pause_s <= LONGEST_PAUSE_S
    assert (decision.pause_s > 0) == (decision.trigger is Trigger.RETRY_LATER)


@given(st.lists(st.sampled_from(["crash", "error", "excused"]), min_size=80, max_size=80), st.integers(1, 20))
def test_no_job_is_tried_for_ever(misfortunes: list[str], max_attempts: int) -> None:
    failures = crashes = excused = tries = 0
    for misfortune in misfortunes:
        tries += 1
        history = Tried(failures, crashes, excused, max_attempts, cancel_asked=False)
        code = "storage_unavailable" if misfortune == "excused" else "app_error"
        decision = after_failure(history, code=code, crash=misfortune == "crash", retryable=True, chance=0)
        if decision.trigger is Trigger.FAIL:
            break
        excused += misfortune == "excused"
        crashes += decision.counts and misfortune == "crash"
        failures += decision.counts and misfortune != "crash"

    assert tries <= max_attempts + CRASH_CAP - 1 + EXCUSED_CAP
