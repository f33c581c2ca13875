"""What becomes of a job whose attempt failed.

Pure: counts and chance come in as arguments. ``stoker.jobs`` carries the decision out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from stoker.states import Trigger

CRASH_CAP = 2  # a job that took two processes or nodes down is not given a third
EXCUSED_CAP = 5  # what was not its own doing is not held against a job so often
AVOID_S = 60.0  # how long a crashed job keeps off the node it crashed on, if another could run it
LONGEST_PAUSE_S = 300.0
ENGINE_PAUSE_S = 5.0  # an engine that was waited for in vain is seldom back in a second

EXCUSED = ["crashed_beside", "internal_error", "storage_unavailable", "unavailable"]
"""Codes of errors that say nothing about the job: another's crash, an engine that was away, the node itself."""


@dataclass(frozen=True)
class Tried:
    """What a job has behind it, before the failure that is decided about."""

    failures: int
    crashes: int
    excused: int
    max_attempts: int
    cancel_asked: bool
    no_retry: bool = False

    @classmethod
    def of(cls, held: Mapping[str, Any]) -> Tried:
        """What ``hold_leases.sql`` says of a job."""
        return cls(**{each.name: held[each.name] for each in fields(cls)})


@dataclass(frozen=True)
class Decision:
    """``counts``: the failure is the job's own, and one more on its account."""

    trigger: Trigger
    pause_s: float = 0.0
    counts: bool = True


def after_failure(tried: Tried, *, code: str, crash: bool, retryable: bool, chance: float) -> Decision:
    """Decide. ``chance`` in [0, 1) spreads the pauses of jobs that failed together.

    Crashes have a cap of their own and are tried again at once; other errors are tried again only if they say that it
    may help and the endpoint allows more than one attempt. What is excused counts as neither until it has happened too
    often. A job that is to be cancelled is not tried again, and one that is not to be retried for nothing.
    """
    if tried.no_retry and not tried.cancel_asked:
        return Decision(Trigger.FAIL)
    if code in EXCUSED and tried.cancel_asked:
        return Decision(Trigger.CANCEL)
    # What went wrong in the node itself may go wrong in the same way again, after another whole run.
    cap = 1 if code == "internal_error" else EXCUSED_CAP
    if code in EXCUSED and tried.excused < cap:
        if crash:
            return Decision(Trigger.RETRY_NOW, counts=False)
        return Decision(Trigger.RETRY_LATER, _pause_s(ENGINE_PAUSE_S, tried.excused, chance), counts=False)
    if crash:
        if tried.cancel_asked:
            return Decision(Trigger.CANCEL)
        return Decision(Trigger.RETRY_NOW if tried.crashes + 1 < CRASH_CAP else Trigger.FAIL)
    if not retryable or tried.failures + 1 >= tried.max_attempts:
        return Decision(Trigger.FAIL)
    if tried.cancel_asked:
        return Decision(Trigger.CANCEL)
    return Decision(Trigger.RETRY_LATER, _pause_s(1.0, tried.failures, chance))


def _pause_s(first_s: float, before: int, chance: float) -> float:
    return min(first_s * 2.0**before, LONGEST_PAUSE_S) * (0.5 + chance / 2)
