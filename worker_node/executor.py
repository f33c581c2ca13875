"""Executor: the jobs of one app on this node. One pipe: claim, run, store, finish.

A seat is what a job occupies (``worker_node.seats``). When the run on a seat ends, its next job is claimed at once: in
the transaction that finishes the last one, or, where files are still to be stored, beside their upload. So a seat holds
at most two leases. What may happen to a job is ``stoker.jobs``'s to say; when to ask for one is the consumer's and the
node's.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stoker import log
from stoker.apps import AppVersion
from stoker.crash_points import Point, reach
from stoker.jobs import Finished
from stoker.nodes import RunnerInfo
from worker_node.attempt import Attempt, Attempts
from worker_node.claims import Claims
from worker_node.ending import finish, outcome_of
from worker_node.engines import Engines
from worker_node.host import AppHost
from worker_node.placement import Placement
from worker_node.quarantine import Quarantine
from worker_node.registration import Identity
from worker_node.run import COMING, Ran, run
from worker_node.seats import Seat, Seats

logger = log.get(__name__)


class Executor:
    """All methods belong on the node's loop. What changes whether it ``is_open`` is told to ``on_change``."""

    def __init__(
        self,
        engines: Engines,
        identity: Identity,
        attempts: Attempts,
        host: AppHost,
        version: AppVersion,
        placement: Placement,
        gpus: Quarantine,
        *,
        lease_s: float,
        on_change: Callable[[str], None],
        on_rest: Callable[[str, float], None],
    ) -> None:
        self._engines, self._identity, self._attempts = engines, identity, attempts
        self._host, self.version, self._placement, self._on_change = host, version, placement, on_change
        rest = partial(on_rest, version.app)
        self._seats = Seats(version, host, placement, gpus, rest, most_waiting=engines.most_waiting)
        self._claims = Claims(engines, identity, attempts, version, self._seats, placement, lease_s=lease_s)
        self._claiming = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()

    @property
    def app(self) -> str:
        return self.version.app

    @property
    def is_open(self) -> bool:
        """Whether a job of this app could start here now."""
        return any(seat.is_free and self._seats.can_take(seat) for seat in self._seats)

    @property
    def lacks_slots(self) -> bool:
        """Whether other apps' ranks are all that keeps a job of this app from being claimed."""
        return self._seats.lack_slots

    @property
    def lacks_more_than_slots(self) -> bool:
        """Whether no job could be claimed for the app's ranks although they have none, whoever has the slots."""
        return self._seats.lack_more_than_slots

    @property
    def runner(self) -> RunnerInfo:
        """The app's runner as nodes report it."""
        status, rest_for_s = self._host.status, self._seats.rest_for_s
        state: str = status.runner if status.state == "ready" else status.state
        if self._placement.is_stuck(self.app):
            state = "stuck"
        elif rest_for_s is not None:
            state = "quarantined"
        return RunnerInfo(
            name=self.app,
            app=self.app,
            state=state,
            world_size=self._host.size,
            slots=self._placement.slots_of(self.app),
            pids=[pid for pid in (status.pid, *status.rank_pids) if pid],
            used_ago_s=self._placement.used_ago_s(self.app),
            quarantined_for_s=rest_for_s,
        )

    @property
    def uses_gpus(self) -> bool:
        """Whether any of its endpoints needs ranks."""
        return any(seat.uses_gpus for seat in self._seats)

    @property
    def restarts(self) -> int:
        """How many processes of the app had to be replaced."""
        return self._host.status.restarts

    def drain(self) -> None:
        """Claim nothing more."""
        self._seats.is_draining = True
        self._on_change(self.app)

    def host_changed(self) -> None:
        """The app host has a new status."""
        if self._placement.is_seated(self.app):  # whose job waits for its slots has no clock that runs
            for attempt in self._attempts:
                if attempt.claim.app == self.app and attempt.claim.uses_gpus:
                    if self._host.status.runner in COMING:
                        attempt.pause_clocks()
                    else:
                        attempt.start_clocks()
        self._on_change(self.app)

    async def answer(self) -> asyncio.Task[None] | None:
        """Claim one job and start to work. The task ends when its seat has no more to do; None: there was nothing."""
        async with self._claiming:
            free = [seat for seat in self._seats if seat.is_free]
            attempt = await self._claims.claim(free)
            if attempt is None:
                return None
            seat = next(seat for seat in free if seat.uses_gpus is attempt.claim.uses_gpus)
            seat.is_free = False
        work = asyncio.create_task(self._work_on(seat, attempt), name=f"{self.app} {attempt.claim.job_id}")
        self._work.add(work)
        work.add_done_callback(self._work_ended)
        self._on_change(self.app)
        return work

    async def settle(self) -> None:
        """Wait until all work has ended."""
        while self._work:
            await asyncio.wait(self._work)

    async def _work_on(self, seat: Seat, first: Attempt) -> None:
        """Job after job, until there is none to take."""
        attempt: Attempt | None = first
        try:
            while attempt is not None:
                attempt = await self._serve(seat, attempt)
        finally:
            seat.is_free, seat.waits = True, False
            if seat.uses_gpus:
                self._placement.ends(self.app)
            self._on_change(self.app)
            await self._stored(seat)

    async def _serve(self, seat: Seat, attempt: Attempt) -> Attempt | None:
        """Run one attempt and see it ended, here or beside its seat's next job; that job, where there is one.

        However it ends, it is not left among those whose leases the heartbeat renews.
        """
        is_storing = False
        try:
            attempt.on_wait = lambda: self._wait(seat, attempt)
            reach(Point.NODE_BEGUN)
            with log.about(**attempt.names):
                ran = await run(self._host, self._engines, attempt, self._placement, folder=self._folder(attempt))
            self._seats.wait(seat, waits=False)
            reach(Point.NODE_RAN)
            if not ran.has_files:
                return await self._finish_and_claim(seat, attempt, ran)
            if seat.is_storing:
                if seat.uses_gpus:  # the store may be away for long, and others could work meanwhile
                    self._placement.ends(self.app)
                await self._stored(seat)  # so that the seat never holds a third lease
            seat.storing = asyncio.create_task(self._store_and_finish(attempt, ran))
            is_storing = True
        finally:
            if not is_storing:
                self._forget(attempt)
        return await self._claims.claim([seat])

    def _wait(self, seat: Seat, attempt: Attempt) -> None:
        """The job on the seat begins to wait for another app's, or goes on."""
        self._seats.wait(seat, waits=attempt.waits_for_children)
        self._on_change(self.app)

    async def _stored(self, seat: Seat) -> None:
        """Wait for the outputs of the seat's last job. What became of them is no matter of the next one."""
        if seat.storing is not None:
            await asyncio.wait([seat.storing])

    async def _finish_and_claim(self, seat: Seat, attempt: Attempt, ran: Ran) -> Attempt | None:
        asked_at = asyncio.get_running_loop().time()
        with log.about(**attempt.names):
            outcome = await outcome_of(self._engines, attempt, ran)
            self._seats.note(attempt.claim, outcome)
            together = not seat.is_storing and self._seats.can_take(seat)
            then = self._claims.request([seat]) if together else None
            finished = await finish(self._engines, attempt, outcome, ran.usage, then=then)
        self._ended(attempt, finished)
        if finished is not None and finished.next is not None:
            return self._claims.begin(finished.next, asked_at)
        return None if together else await self._claims.claim([seat])

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

    def _folder(self, attempt: Attempt) -> Path:
        return self._identity.folder / "inputs" / f"{attempt.claim.job_id}.{attempt.claim.attempt}"

    def _forget(self, attempt: Attempt) -> None:
        self._attempts.remove(attempt)
        shutil.rmtree(self._folder(attempt), ignore_errors=True)

    def _ended(self, attempt: Attempt, finished: Finished | None) -> None:
        self._forget(attempt)
        if finished is not None and finished.state is not None and finished.state.is_final:
            self._host.is_over(attempt.claim.job_id)

    def _work_ended(self, work: asyncio.Task[None]) -> None:
        self._work.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.error("work_failed", app=self.app, next="leases run out, jobs are retried", exc_info=error)
