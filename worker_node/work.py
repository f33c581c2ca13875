"""Work: job after job on one seat, until there is none to take. One pipe: run, store, finish, and the next claim.

When the run on a seat ends, its next job is claimed at once: in the transaction that finishes the last one, or, where
files are still to be stored, beside their upload: so a seat holds two leases. While jobs are short it claims a few more
ahead (``worker_node.ahead``). ``executor`` begins it with the first job.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from stoker import log
from stoker.crash_points import Point, reach
from stoker.jobs import Finished, Usage
from worker_node.ahead import Ahead
from worker_node.attempt import Attempt, Attempts
from worker_node.claims import Claims
from worker_node.ending import finish, give_back, outcome_of
from worker_node.engines import Engines
from worker_node.host import AppHost
from worker_node.placement import Placement
from worker_node.registration import Identity
from worker_node.run import Ran, run
from worker_node.seats import Seat, Seats

logger = log.get(__name__)


class Work:
    """That of one app. ``on_change`` hears when a seat may have become free."""

    def __init__(
        self,
        engines: Engines,
        identity: Identity,
        attempts: Attempts,
        host: AppHost,
        placement: Placement,
        seats: Seats,
        claims: Claims,
        *,
        ahead_below_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self._engines, self._attempts, self._host, self._placement = engines, attempts, host, placement
        self._seats, self._claims, self._on_change = seats, claims, on_change
        self._ahead_below_s = ahead_below_s
        self._inputs = identity.folder / "inputs"

    async def on(self, seat: Seat, first: Attempt) -> None:
        """Serve ``first``, which was claimed for the seat, and what follows."""
        ahead = Ahead(self._give_back, self._ahead_below_s)
        app, attempt = first.claim.app, first
        try:
            while (following := await self._serve(seat, attempt, ahead)) is not None:
                attempt = following
        finally:
            seat.is_free, seat.waits = True, False
            if seat.uses_gpus:
                self._placement.ends(app)
            self._on_change()
            await ahead.settle()
            await self._stored(seat)

    async def _serve(self, seat: Seat, attempt: Attempt, ahead: Ahead) -> Attempt | None:
        """Run one attempt and see it ended, here or beside its seat's next job; that job, where there is one.

        However it ends, it is not left among those whose leases the heartbeat renews.
        """
        loop, is_beside = asyncio.get_running_loop(), False
        try:
            attempt.on_wait = lambda: self._wait(seat, attempt, ahead)
            reach(Point.NODE_BEGUN)
            began = loop.time()
            with log.about(**attempt.names):
                ran = await run(self._host, self._engines, attempt, self._placement, folder=self._folder(attempt))
            ran_s = loop.time() - began
            self._seats.wait(seat, waits=False)
            reach(Point.NODE_RAN)
            if ran.has_files and seat.is_storing:
                ahead.drop()  # the store may be away for long
            following = await self._taken(seat, ahead)
            if ran.has_files:
                if seat.is_storing:
                    if seat.uses_gpus:  # the store may be away for long, and others could work meanwhile
                        self._placement.ends(attempt.claim.app)
                    await self._stored(seat)  # so that the seat never holds a third result
                seat.storing = asyncio.create_task(self._store_and_finish(attempt, ran))
                is_beside = True
            elif following is not None:
                pays = ahead.pays(ran_s) and not following.claim.is_capped
                ahead.begin(self._finish_beside(seat, attempt, ran, claims=pays))
                is_beside = True
                if pays and ahead.lacks_one(ran_s) and self._seats.can_take_ahead(seat):
                    ahead.begin(self._claims.claim_ahead(seat))
            else:
                following = await self._finish_and_claim(seat, attempt, ran)
                pays = following is not None and ahead.pays(ran_s) and not following.claim.is_capped
                if pays and self._seats.can_take_ahead(seat):
                    ahead.begin(self._claims.claim_ahead(seat))
                return following
        finally:
            if not is_beside:
                self._forget(attempt)
        return following or await self._claims.claim([seat])

    async def _taken(self, seat: Seat, ahead: Ahead) -> Attempt | None:
        """What was claimed ahead, if it can begin now."""
        attempt = await ahead.taken()
        if attempt is None:
            return None
        if attempt.stopped.is_set() or not self._seats.is_ready(seat):
            await self._give_back(attempt)
            return None
        attempt.ahead_s = asyncio.get_running_loop().time() - attempt.claimed_at
        return attempt

    def _wait(self, seat: Seat, attempt: Attempt, ahead: Ahead) -> None:
        """The job on the seat begins to wait for another app's, perhaps for the one behind it, or goes on."""
        ahead.drop()
        self._seats.wait(seat, waits=attempt.waits_for_children)
        self._on_change()

    async def _stored(self, seat: Seat) -> None:
        """Wait for the outputs of the seat's last job. What became of them is no matter of the next one."""
        if seat.storing is not None:
            await asyncio.wait([seat.storing])

    async def _finish_and_claim(self, seat: Seat, attempt: Attempt, ran: Ran) -> Attempt | None:
        together = not seat.is_storing and self._seats.can_take(seat)
        following = await self._finish(seat, attempt, ran, claims=together)
        return following if together else await self._claims.claim([seat])

    async def _finish_beside(self, seat: Seat, attempt: Attempt, ran: Ran, *, claims: bool) -> Attempt | None:
        """End an attempt while its seat's next job runs; what was claimed with it."""
        try:
            together = claims and not seat.is_storing and self._seats.can_take_ahead(seat)
            return await self._finish(seat, attempt, ran, claims=together)
        except Exception:
            logger.exception("result_not_recorded", next="its lease runs out, the job is retried", **attempt.names)
            return None
        finally:
            self._forget(attempt)

    async def _finish(self, seat: Seat, attempt: Attempt, ran: Ran, *, claims: bool) -> Attempt | None:
        with log.about(**attempt.names):
            outcome = await outcome_of(self._engines, attempt, ran)
            self._seats.note(attempt.claim, outcome)
            then = self._claims.request([seat]) if claims else None
            finished = await finish(self._engines, attempt, outcome, ran.usage, then=then)
        self._ended(attempt, finished)
        if finished is None or finished.next is None:
            return None
        return self._claims.begin(finished.next, attempt.ending_at)

    async def _store_and_finish(self, attempt: Attempt, ran: Ran) -> None:
        try:
            with log.about(**attempt.names):
                outcome = await outcome_of(self._engines, attempt, ran)
                self._seats.note(attempt.claim, outcome)
                self._ended(attempt, await finish(self._engines, attempt, outcome, ran.usage))
        except Exception:
            logger.exception("result_not_recorded", next="its lease runs out, the job is retried", **attempt.names)
        finally:
            self._forget(attempt)

    async def _give_back(self, attempt: Attempt) -> None:
        """Its seat has not come to it. What cannot be given back now waits for its lease to end."""
        try:
            waited_s = asyncio.get_running_loop().time() - attempt.claimed_at
            await give_back(self._engines, attempt, "not_begun", Usage(phases={"ahead": waited_s}))
        except Exception:
            logger.exception("job_not_given_back", next="its lease runs out, the job is retried", **attempt.names)
        finally:
            self._forget(attempt)

    def _folder(self, attempt: Attempt) -> Path:
        return self._inputs / f"{attempt.claim.job_id}.{attempt.claim.attempt}"

    def _forget(self, attempt: Attempt) -> None:
        self._attempts.remove(attempt)
        folder = self._folder(attempt)
        if os.path.lexists(folder):  # most jobs bring no files, and say little
            shutil.rmtree(folder, ignore_errors=True)

    def _ended(self, attempt: Attempt, finished: Finished | None) -> None:
        self._forget(attempt)
        if finished is not None and finished.state is not None and finished.state.is_final:
            self._host.is_over(attempt.claim.job_id)
