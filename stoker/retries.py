"""What becomes of a job whose attempt failed.

Pure: counts and chance come in as arguments. ``stoker.jobs`` carries the decision out.
"""

from __future__ import annotations

from dataclasses import dataclass

from stoker.states import Trigger

CRASH_CAP = 2  # a job that took two processes or nodes down is not given a third
AVOID_S = 60.0  # how long a crashed job keeps off the node it crashed on, if another could run it
LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True)
class Tried:
    """What a job has behind it, before the failure that is decided about."""

    failures: int
    crashes: int
    max_attempts: int
    cancel_asked: bool


@dataclass(frozen=True)
class Decision:
    trigger: Trigger
    pause_s: float = 0.0


def after_failure(tried: Tried, *, crash: bool, retryable: bool, chance: float) -> Decision:
    """Decide. ``chance`` in [0, 1) spreads the pauses of jobs that failed together.

    Crashes have a cap of their own and are tried again at once; other errors are tried again only if they say that it
    may help and the endpoint allows more than one attempt. A job that is to be cancelled is not tried again.
    """
    if crash:
        if tried.cancel_asked:
            return Decision(Trigger.CANCEL)
        return Decision(Trigger.RETRY_NOW if tried.crashes + 1 < CRASH_CAP else Trigger.FAIL)
    if not retryable or tried.failures + 1 >= tried.max_attempts:
        return Decision(Trigger.FAIL)
    if tried.cancel_asked:
        return Decision(Trigger.CANCEL)
    return Decision(Trigger.RETRY_LATER, pause_s=min(2.0**tried.failures, LONGEST_PAUSE_S) * (0.5 + chance / 2))
