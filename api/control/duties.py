"""The duties: a few lines each around ``stoker``, which decides.

Webhooks are ``api.control.deliverer``'s, retention is ``api.control.pruning``'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import cancels
from api.control.deliverer import Deliverer
from api.control.loop import Duty
from api.control.metrics import ControlMetrics
from api.control.pruning import Pruner
from api.control.reaper import Reaper
from stoker import children, event_clock, job_queries, jobs, lanes, log, uploads
from stoker.bus import Bus
from stoker.crash_points import Point, reach
from stoker.errors import NodeLost, StokerError
from stoker.jobs import Moved
from stoker.queue import Doorbell
from stoker.settings import ControlSettings
from stoker.states import JobState
from stoker.storage import Storage

CLOCK_S = 10.0
UPLOADS_S = 60.0
DELIVER_S = 0.1
"""A look costs next to nothing, and a receiver with many deliveries gets a handful at each."""
CHARGE_S = 5.0

# One replica at a time: requests are carried out in the order in which they were made.
MY_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('stoker admin_requests', 0))")
OPEN_REQUEST = text("SELECT id, action, target FROM admin_requests WHERE done_at IS NULL ORDER BY id LIMIT 1")
ANSWER_REQUEST = text("UPDATE admin_requests SET done_at = stoker_now(), answer = :answer WHERE id = :id")

logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Control:
    """What the duties work with."""

    settings: ControlSettings
    db: AsyncEngine
    bus: Bus
    doorbell: Doorbell
    storage: Storage
    deliverer: Deliverer
    metrics: ControlMetrics = field(default_factory=ControlMetrics)
    reaper: Reaper = field(default_factory=Reaper)

    def duties(self) -> list[Duty]:
        """All of them, with their pace."""
        reap_s = self.settings.reap_s
        return [
            Duty("reap", reap_s, self.reap),
            Duty("expire_unstarted", reap_s, self.expire_unstarted),
            Duty("promote_due", reap_s, self.promote_due),
            Duty("cancel_orphans", reap_s, self.cancel_orphans),
            Duty("tend_lanes", self.settings.look_s, self.tend_lanes),
            Duty("charge_running", CHARGE_S, self.charge_running),
            Duty("admin_requests", reap_s, self.carry_out_requests),
            Duty("deliver", DELIVER_S, self.deliverer.deliver_due),
            Duty("event_clock", CLOCK_S, self.keep_event_clock),
            Duty("end_uploads", UPLOADS_S, self.end_uploads),
            *Pruner(self.settings, self.db, self.storage).duties(),
        ]

    async def reap(self) -> None:
        """Take back the jobs of nodes that stopped renewing."""
        reaped = await self.reaper.reap(self.db)
        for job in reaped:
            reach(Point.CONTROL_REAPED)
            self.metrics.leases_expired.labels(job.queue).inc()
        await self._tell(reaped, "job_reaped")

    async def expire_unstarted(self) -> None:
        """Fail what waited past its start timeout."""
        expired = await jobs.expire_unstarted(self.db)
        if expired:
            reach(Point.CONTROL_EXPIRED)
        await self._tell(expired, "job_expired")

    async def promote_due(self) -> None:
        """Queue what has come due."""
        for app in await jobs.promote_due(self.db):
            reach(Point.CONTROL_PROMOTED)
            self.doorbell.ring(app)

    async def cancel_orphans(self) -> None:
        """Cancel what goes on though the job that started it is final, or is about to stop."""
        for child in await children.cancel_orphans(self.db):
            reach(Point.CONTROL_ORPHAN_CANCELLED)
            logger.info("orphan_cancelled", job_id=str(child.job_id), state=child.state.value)
            self.metrics.counts.ended(child.queue, child.state)
            await cancels.tell_of_child(self.bus, child)

    async def tend_lanes(self) -> None:
        await lanes.tend(self.db)

    async def charge_running(self) -> None:
        """Let long jobs count for their tenants before they end."""
        await lanes.charge_running(self.db)

    async def keep_event_clock(self) -> None:
        """See whether this is still the server that numbered the events."""
        await event_clock.keep(self.db)

    async def end_uploads(self) -> None:
        """Throw the parts away of uploads whose time has ended; of those that were completed only the row."""
        over = await uploads.expired(self.db)
        for upload in over:
            if upload.multipart_id is not None:
                await self.storage.abort_multipart(upload.key, upload.multipart_id)
        if over:
            await uploads.forget(self.db, [upload.id for upload in over])

    async def carry_out_requests(self) -> None:
        """Do what admins asked for in SQL, one request a transaction."""
        while True:
            async with self.db.begin() as connection:
                is_mine = (await connection.execute(MY_TURN)).scalar_one()
                request = (await connection.execute(OPEN_REQUEST)).one_or_none() if is_mine else None
                if request is None:
                    return
                answer = await self._carry_out(request.id, request.action, request.target)
                reach(Point.CONTROL_REQUEST_CARRIED_OUT)
                await connection.execute(ANSWER_REQUEST, {"id": request.id, "answer": answer})
            logger.info("admin_request_done", action=request.action, target=request.target, answer=answer)

    async def _carry_out(self, request_id: int, action: str, target: str) -> str:
        try:
            if action == "cancel":
                cancelled = await jobs.request_cancel(self.db, UUID(target), None)
                if cancelled.node_id is not None:
                    await self.bus.nudge_cancel(cancelled.node_id, UUID(target))
                job = await job_queries.get(self.db, UUID(target), None)
                is_final = cancelled.state.is_final
                await self.bus.wake(UUID(target), cancelled.seq, job.tenant_id, is_final=is_final)
                self.metrics.counts.ended(job.app, cancelled.state)
                return cancelled.state.value
            if action == "retry":
                # Should our answer to the request be lost, it is carried out again and finds this job.
                submitted = await jobs.retry(self.db, UUID(target), None, idempotency_key=f"admin-request-{request_id}")
                self.doorbell.ring(submitted.queue)
                return str(submitted.job_id)
        except (StokerError, ValueError) as error:
            return f"refused: {error}"
        return f"refused: nothing is called {action!r}"

    async def _tell(self, moved: Iterable[Moved], event: str) -> None:
        for job in moved:
            logger.info(event, **job.names)
            self.metrics.counts.ended(job.queue, job.state, NodeLost.code)
            await self.bus.wake(job.job_id, job.seq, job.tenant_id, is_final=job.state.is_final)
            if job.state is JobState.QUEUED:
                self.doorbell.ring(job.queue)
