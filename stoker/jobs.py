"""What may happen to a job: every change of its state, and nowhere else.

Each function is one transaction (reaping and the like: one an app). It reads nothing for callers
(``stoker.job_queries``), rings no doorbell and publishes nothing: who calls it does, with what it returns. The API, the
control loop and the nodes call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.events import EventKind
from stoker.job_values import (
    CancelResult,
    Claim,
    ClaimRequest,
    ErrorReport,
    Failed,
    Finished,
    Lease,
    Moved,
    NewJob,
    Outcome,
    Output,
    QueueKey,
    Renewal,
    Stopped,
    Submitted,
    Succeeded,
    Usage,
)

__all__ = [
    "CancelResult",
    "Claim",
    "ClaimRequest",
    "ErrorReport",
    "Failed",
    "Finished",
    "Lease",
    "Moved",
    "NewJob",
    "Outcome",
    "Output",
    "QueueKey",
    "Renewal",
    "Stopped",
    "Submitted",
    "Succeeded",
    "Usage",
    "append_events",
    "claim",
    "expire_unstarted",
    "finish",
    "promote_due",
    "reap",
    "release",
    "release_former_boots",
    "renew",
    "request_cancel",
    "retry",
    "submit",
]


async def submit(db: AsyncEngine, new: NewJob) -> Submitted:
    """Store a job with its first event, and wake its lane.

    Raises:
        IdempotencyConflict: the tenant used the key before, for another request.
    """
    raise NotImplementedError


async def claim(db: AsyncEngine, request: ClaimRequest) -> Claim | None:
    """Take the best waiting job of the app's queues; None if there is none to take now."""
    raise NotImplementedError


async def renew(
    db: AsyncEngine,
    *,
    node_id: str,
    boot_id: UUID,
    leases: Sequence[Lease],
    lease_s: float,
    progress: Mapping[UUID, dict[str, Any]],
) -> Renewal:
    """One heartbeat of a node for all its leases, with its jobs' progress. With no leases it says the node lives."""
    raise NotImplementedError


async def append_events(db: AsyncEngine, lease: Lease, events: Sequence[tuple[EventKind, dict[str, Any]]]) -> int:
    """Store events of a running attempt; the seq of the last.

    Raises:
        LeaseLost: the attempt does not hold the job any more.
    """
    raise NotImplementedError


async def finish(
    db: AsyncEngine, lease: Lease, outcome: Outcome, usage: Usage, *, then: ClaimRequest | None = None
) -> Finished:
    """End an attempt, and claim the next job of the same app in the same transaction if ``then`` asks so."""
    raise NotImplementedError


async def request_cancel(db: AsyncEngine, job_id: UUID, tenant_id: UUID | None) -> CancelResult:
    """Cancel a job that waits at once; ask for it where it runs.

    Raises:
        NotFound: there is no such job, or it is another tenant's.
        Conflict: it is final.
    """
    raise NotImplementedError


async def release(db: AsyncEngine, leases: Sequence[Lease], reason: str) -> list[Moved]:
    """Give running jobs back unharmed (a node drains): queued again, no retry used up."""
    raise NotImplementedError


async def release_former_boots(db: AsyncEngine, node_id: str, boot_id: UUID) -> list[Moved]:
    """Take back what other boots of this node held: they are dead."""
    raise NotImplementedError


async def reap(db: AsyncEngine, *, limit: int = 100) -> list[Moved]:
    """Take jobs back whose lease ran out: queued, failed at the cap, or cancelled if that was asked."""
    raise NotImplementedError


async def expire_unstarted(db: AsyncEngine, *, limit: int = 500) -> list[Moved]:
    """Fail the jobs that were not started within their start timeout."""
    raise NotImplementedError


async def promote_due(db: AsyncEngine, *, limit: int = 500) -> list[str]:
    """Queue the scheduled jobs whose time has come; the apps to ring."""
    raise NotImplementedError


async def retry(db: AsyncEngine, job_id: UUID, tenant_id: UUID | None) -> Submitted:
    """Submit a final job again, as a new one that names it.

    Raises:
        NotFound: there is no such job, or it is another tenant's.
        Conflict: it is not final yet.
    """
    raise NotImplementedError
