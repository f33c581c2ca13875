"""Exits: all that is written when an attempt ends, as one JSON record for ``leave_running.sql``.

Pure but for ids. ``stoker.jobs`` chooses the trigger; the table of ``stoker.states`` says where it leads.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stoker.errors import NodeLost
from stoker.ids import new_id
from stoker.job_values import End, ErrorReport, Failed, Lease, Succeeded, Usage
from stoker.retries import AVOID_S, Decision, Tried, after_failure
from stoker.states import TRANSITIONS, JobState, Trigger

Exit = dict[str, Any]

# An attempt's outcome says what the attempt did, whatever then becomes of the job.
_OUTCOMES = {
    Trigger.SUCCEED: "succeeded",
    Trigger.CANCEL: "cancelled",
    Trigger.LOSE_LEASE: "lease_lost",
    Trigger.RELEASE: "released",
}
_REASONS = {
    Trigger.SUCCEED: "succeeded",
    Trigger.FAIL: "failed",
    Trigger.CANCEL: "cancelled",
    Trigger.RETRY_NOW: "retry",
    Trigger.RETRY_LATER: "retry",
    Trigger.LOSE_LEASE: "lease_lost",
    Trigger.RELEASE: "released",
}


def ended(end: End) -> Exit:
    """The attempt was not a failure."""
    if not isinstance(end.outcome, Succeeded):
        return _exit(end.lease, Decision(Trigger.CANCEL), usage=end.usage)
    outputs = [
        asdict(output) | {"id": str(output.id), "position": position}
        for position, output in enumerate(end.outcome.outputs)
    ]
    leaving = _exit(end.lease, Decision(Trigger.SUCCEED), usage=end.usage)
    return leaving | {"result": end.outcome.result, "outputs": outputs}


def failed(lease: Lease, outcome: Failed, usage: Usage, *, tried: Tried, node_id: str, chance: float) -> Exit:
    error = outcome.error
    decision = after_failure(tried, code=error.code, crash=error.crash, retryable=error.retryable, chance=chance)
    return _exit(lease, decision, usage=usage, error=error, node_id=node_id)


def lost(lease: Lease, *, tried: Tried, node_id: str) -> Exit:
    """The node has not renewed the lease, or has started anew without the job."""
    error = ErrorReport.of(NodeLost(f"node {node_id!r} stopped renewing the lease of attempt {lease.attempt}"))
    decision = after_failure(tried, code=error.code, crash=True, retryable=True, chance=0)
    if decision.trigger is Trigger.RETRY_NOW:
        decision = Decision(Trigger.LOSE_LEASE)
    return _exit(lease, decision, error=error, node_id=node_id) | {"outcome": "lease_lost"}


def released(lease: Lease, *, tried: Tried, reason: str, usage: Usage | None) -> Exit:
    """The node gives the job back unharmed."""
    exit_ = _exit(lease, Decision(Trigger.CANCEL if tried.cancel_asked else Trigger.RELEASE), usage=usage)
    return exit_ if tried.cancel_asked else exit_ | {"reason": reason}


def _exit(
    lease: Lease,
    decision: Decision,
    *,
    usage: Usage | None = None,
    error: ErrorReport | None = None,
    node_id: str | None = None,
) -> Exit:
    trigger = decision.trigger
    state = TRANSITIONS[JobState.RUNNING, trigger]
    counts = error is not None and decision.counts
    crash = counts and error is not None and error.crash
    return {
        "job_id": str(lease.job_id),
        "attempt": lease.attempt,
        "state": state,
        "is_final": state.is_final,
        "outcome": "failed" if error is not None else _OUTCOMES[trigger],
        "reason": _REASONS[trigger],
        "error": None if error is None else error.to_json(),
        "failed": int(counts and not crash),
        "crashed": int(crash),
        "pause_s": decision.pause_s,
        "avoid_node": node_id if crash and not state.is_final else None,
        "avoid_s": AVOID_S,
        "delivery_id": str(new_id()),
        "usage": None if usage is None else asdict(usage),
        "outputs": [],
    }
