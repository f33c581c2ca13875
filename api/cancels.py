"""Cancels: who hears of one. It is recorded already; the routes and the control loop call this."""

from __future__ import annotations

from uuid import UUID

from stoker.bus import Bus
from stoker.jobs import CancelResult, Moved


async def tell(bus: Bus, job_id: UUID, tenant_id: UUID | None, cancelled: CancelResult) -> None:
    """Tell the node that runs the job, or those who follow it that it has ended."""
    if cancelled.node_id is not None:
        await bus.nudge_cancel(cancelled.node_id, job_id)
    else:
        await bus.wake(job_id, cancelled.seq, tenant_id, is_final=cancelled.state.is_final)


async def tell_of_child(bus: Bus, child: Moved) -> None:
    """The same for a child that was cancelled because of its parent."""
    await tell(bus, child.job_id, child.tenant_id, CancelResult(child.state, child.node_id, child.seq))
