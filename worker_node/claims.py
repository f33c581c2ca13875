"""Claims: how the seats of one app come to their jobs, with slots where a job needs ranks.

A claim is one transaction of ``stoker.jobs``, which decides the order; slots are set aside before it and given up where
it brings nothing. It runs no job: the executor does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stoker import jobs, log
from stoker.apps import AppVersion
from stoker.crash_points import Point, reach
from stoker.database import is_passing
from stoker.jobs import Claim, ClaimRequest, QueueKey
from worker_node.attempt import Attempt, Attempts, kill_after_s, safe_until
from worker_node.engines import Engines
from worker_node.placement import Placement
from worker_node.records import COMMIT_S
from worker_node.registration import Identity
from worker_node.seats import Seat, Seats

TOLD_AFTER_S = 0.001
"""A claim is logged, counted and told of so much later: its call is on its way to the app by then."""

logger = log.get(__name__)


class Claims:
    """Those of one app."""

    def __init__(
        self,
        engines: Engines,
        identity: Identity,
        attempts: Attempts,
        version: AppVersion,
        seats: Seats,
        placement: Placement,
        *,
        lease_s: float,
    ) -> None:
        self._engines, self._identity, self._attempts, self._version = engines, identity, attempts, version
        self._seats, self._placement, self._lease_s = seats, placement, lease_s

    async def claim(self, seats: Sequence[Seat]) -> Attempt | None:
        """Claim one job for one of these seats; None: there is none, or none of them may have one now."""
        seats = [seat for seat in seats if self._seats.is_ready(seat)]
        if any(seat.uses_gpus for seat in seats):
            if self._placement.take(self._version.app):
                return await self._claim_with_slots(seats)
            # Whoever rang or left a seat had a reason: it is asked again when it is this app's turn.
            self._placement.may_wait(self._version.app)
        return await self._claim([seat for seat in seats if not seat.uses_gpus])

    async def claim_ahead(self, seat: Seat) -> Attempt | None:
        """Claim the job after the one that the seat serves, whose slots it will have. It fails nobody's result."""
        try:
            return await self._ask([seat])
        except Exception:
            logger.exception(
                "claim_ahead_failed", app=self._version.app, next="it is claimed in its turn, or looked for"
            )
            return None

    def request(self, seats: Sequence[Seat]) -> ClaimRequest:
        """What to ask for, for these seats: of one kind, or free to take any job."""
        kinds = sorted({seat.uses_gpus for seat in seats})
        least_depth = max(self._seats.least_depth(uses_gpus=kind) for kind in kinds)
        queues = tuple(QueueKey(self._version.id, uses_gpus) for uses_gpus in kinds)
        return ClaimRequest(
            self._identity.node_id, self._identity.boot_id, queues, self._version.app, self._lease_s, least_depth
        )

    def begin(self, claim: Claim, asked_at: float) -> Attempt:
        """Take in what was claimed. ``asked_at``, by the loop's clock: its lease is no older."""
        attempt = Attempt(
            claim, safe_until=safe_until(asked_at, self._lease_s), kill_after_s=kill_after_s(self._lease_s)
        )
        self._attempts.add(attempt)
        asyncio.get_running_loop().call_later(TOLD_AFTER_S, self._tell, attempt)
        return attempt

    def _tell(self, attempt: Attempt) -> None:
        claim = attempt.claim
        logger.info("job_claimed", app=claim.app, **attempt.names)
        self._engines.metrics.claimed(claim)
        self._engines.tell(claim.job_id, claim.seq, claim.tenant_id)

    async def _claim_with_slots(self, seats: Sequence[Seat]) -> Attempt | None:
        """The same while slots are set aside, for a job that needs them or for none."""
        attempt: Attempt | None = None
        try:
            attempt = await self._claim(seats)
        finally:
            if attempt is not None and attempt.claim.uses_gpus:
                self._placement.keep(self._version.app)
            else:
                self._placement.give_up(self._version.app)
        return attempt

    async def _claim(self, seats: Sequence[Seat]) -> Attempt | None:
        with_gpus = [seat for seat in seats if seat.uses_gpus]
        without = [seat for seat in seats if not seat.uses_gpus]
        if with_gpus and without and self._seats.least_depth(uses_gpus=False):
            return await self._ask(with_gpus) or await self._ask(without)
        return await self._ask(seats)

    async def _ask(self, seats: Sequence[Seat]) -> Attempt | None:
        if not seats:
            return None
        asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(COMMIT_S):
                claim = await jobs.claim(self._engines.db, self.request(seats))
        except Exception as error:
            if not (is_passing(error) or isinstance(error, TimeoutError)):
                raise
            return None  # the heartbeat says that Postgres is away; the look finds the job later
        if claim is None:
            return None
        reach(Point.NODE_CLAIMED)
        return self.begin(claim, asked_at)
