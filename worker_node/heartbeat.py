"""Heartbeat: one statement every few seconds that renews all leases of this node and learns what to stop.

What it cannot renew is not its decision: each attempt stops itself when its lease is about to end. It claims and
finishes nothing, but gives back what was claimed for this node without its knowing. The node runs one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import jobs, log
from stoker.crash_points import Point, reach
from stoker.database import is_unreachable
from stoker.jobs import Lease, Moved
from worker_node.attempt import Attempts, StopReason, safe_until
from worker_node.registration import Identity

logger = log.get(__name__)


class Heartbeat:
    """``on_return`` hears of each job that was given back."""

    def __init__(
        self,
        db: AsyncEngine,
        identity: Identity,
        attempts: Attempts,
        *,
        every_s: float,
        lease_s: float,
        on_return: Callable[[Moved], None],
        missed: Counter | None = None,
    ) -> None:
        self._on_return, self._missed = on_return, missed
        self._db, self._identity, self._attempts = db, identity, attempts
        self._every_s, self._lease_s = every_s, lease_s
        self._reachable = True
        self._unnamed_since: dict[Lease, float] = {}

    async def run(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            sent_at = loop.time()
            await self._beat(sent_at)
            await asyncio.sleep(max(0.0, sent_at + self._every_s - loop.time()))

    async def _beat(self, sent_at: float) -> None:
        sent = {attempt.lease: attempt for attempt in self._attempts}
        progress: dict[UUID, dict[str, Any]] = {
            attempt.claim.job_id: attempt.newest_progress
            for attempt in sent.values()
            if attempt.newest_progress is not None and attempt.newest_progress is not attempt.kept_progress
        }
        try:
            async with asyncio.timeout(self._lease_s / 4):
                renewal = await jobs.renew(
                    self._db,
                    node_id=self._identity.node_id,
                    boot_id=self._identity.boot_id,
                    leases=list(sent),
                    lease_s=self._lease_s,
                    progress=progress,
                )
        except Exception as error:  # noqa: BLE001 - a heart that stops at a surprise would lose every job of the node
            self._note_missed(error)
            return
        reach(Point.NODE_RENEWED)
        self._note_reachable()
        for lease, attempt in sent.items():
            if lease not in renewal.lost:
                attempt.kept_progress = progress.get(attempt.claim.job_id, attempt.kept_progress)
                attempt.renew(safe_until(sent_at, self._lease_s))
        self._attempts.stop(renewal.lost, StopReason.LEASE_LOST)
        self._attempts.stop(renewal.cancelled, StopReason.CANCEL)
        await self._give_back(renewal.unnamed, asyncio.get_running_loop().time())

    async def _give_back(self, unnamed: frozenset[Lease], now: float) -> None:
        """Give up the leases of claims that were committed and whose answers never came: nobody works under them.

        The answer of a young one may be on its way. A lease that was begun here and whose end could not be recorded is
        left to run out, so that it counts: else a job that cannot be ended would run for ever.
        """
        self._unnamed_since = {lease: self._unnamed_since.get(lease, now) for lease in unnamed}
        never_came = [
            lease
            for lease, since in self._unnamed_since.items()
            if now - since >= self._lease_s / 4 and not self._attempts.has_begun(lease)
        ]
        if not never_came:
            return
        try:
            async with asyncio.timeout(self._lease_s / 4):
                moved = await jobs.release(self._db, dict.fromkeys(never_came), "claim_lost")
        except Exception as error:  # noqa: BLE001 - as above; the next beat tries again, or the leases run out
            self._note_missed(error)
            return
        for job in moved:
            logger.warning("claim_lost", **job.names)
            self._on_return(job)

    def _note_missed(self, error: Exception) -> None:
        if self._missed is not None:
            self._missed.inc()
        if isinstance(error, TimeoutError) or is_unreachable(error):
            if self._reachable:
                logger.warning("postgres_lost", error=str(error)[:300], next="jobs stop before their leases end")
            self._reachable = False
        else:
            logger.error("heartbeat_failed", exc_info=error)

    def _note_reachable(self) -> None:
        if not self._reachable:
            logger.info("postgres_back")
        self._reachable = True
