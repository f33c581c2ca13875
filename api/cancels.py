"""Cancels: a caller's, and who hears of one. The routes and the control loop call this; ``stoker.jobs`` decides."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import children, jobs
from stoker.bus import Bus
from stoker.crash_points import Point, reach
from stoker.jobs import CancelResult, Moved
from stoker.metrics import JobCounts


async def cancel(db: AsyncEngine, bus: Bus, counts: JobCounts, job_id: UUID, tenant_id: UUID) -> CancelResult:
    """Cancel a waiting job at once, ask the node of a running one to stop it; and all that it has started.

    Raises:
        NotFound, Conflict: as ``stoker.jobs.request_cancel``.
    """
    cancelled = await jobs.request_cancel(db, job_id, tenant_id)
    reach(Point.API_CANCELLED)
    await tell(bus, job_id, tenant_id, cancelled)
    for child in await children.cancel_below(db, job_id):
        await tell_of_child(bus, child)
        counts.ended(child.queue, child.state)
    return cancelled


async def tell(bus: Bus, job_id: UUID, tenant_id: UUID | None, cancelled: CancelResult) -> None:
    """Tell the node that runs the job, or those who follow it that it has ended."""
    if cancelled.node_id is not None:
        await bus.nudge_cancel(cancelled.node_id, job_id)
    else:
        await bus.wake(job_id, cancelled.seq, tenant_id, is_final=cancelled.state.is_final)


async def tell_of_child(bus: Bus, child: Moved) -> None:
    """The same for a child that was cancelled because of its parent."""
    await tell(bus, child.job_id, child.tenant_id, CancelResult(child.state, child.node_id, child.seq))
