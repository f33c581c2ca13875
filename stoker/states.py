"""Job states and the transitions between them, as data.

Pure: no I/O. ``stoker.jobs`` turns the table into SQL guards; the docs diagram and the tests read the same table.
A request to cancel is a timestamp on the job, not a state, and a timeout is ``failed`` with its error type.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL


class Trigger(StrEnum):
    """What moves a job from one state to another."""

    COME_DUE = "come_due"
    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY_NOW = "retry_now"
    RETRY_LATER = "retry_later"
    LOSE_LEASE = "lose_lease"
    RELEASE = "release"
    CANCEL = "cancel"
    EXPIRE = "expire"


TRANSITIONS: dict[tuple[JobState, Trigger], JobState] = {
    (JobState.SCHEDULED, Trigger.COME_DUE): JobState.QUEUED,
    (JobState.SCHEDULED, Trigger.CANCEL): JobState.CANCELLED,
    (JobState.SCHEDULED, Trigger.EXPIRE): JobState.FAILED,
    (JobState.QUEUED, Trigger.CLAIM): JobState.RUNNING,
    (JobState.QUEUED, Trigger.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, Trigger.EXPIRE): JobState.FAILED,
    (JobState.RUNNING, Trigger.SUCCEED): JobState.SUCCEEDED,
    (JobState.RUNNING, Trigger.FAIL): JobState.FAILED,
    (JobState.RUNNING, Trigger.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, Trigger.RETRY_NOW): JobState.QUEUED,
    (JobState.RUNNING, Trigger.RETRY_LATER): JobState.SCHEDULED,
    (JobState.RUNNING, Trigger.LOSE_LEASE): JobState.QUEUED,
    (JobState.RUNNING, Trigger.RELEASE): JobState.QUEUED,
}

FINAL: frozenset[JobState] = frozenset(JobState) - {state for state, _ in TRANSITIONS}


def sources(trigger: Trigger) -> frozenset[JobState]:
    """The states that ``trigger`` may leave: what a guarded UPDATE puts in its WHERE."""
    return frozenset(state for state, by in TRANSITIONS if by is trigger)
