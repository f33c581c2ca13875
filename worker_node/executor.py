"""Executor: the jobs of one app on this node. One pipe: claim, run, store, finish.

A seat is what a job occupies: the app's ranks are one, and a few more take the calls that need no GPU. When the run
on a seat ends, its next job is claimed at once: in the transaction that finishes the last one, or, where files are
still to be stored, beside their upload. So a seat holds at most two leases. What may happen to a job is
``stoker.jobs``'s to say; when to ask for one is the consumer's and the node's.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stoker import jobs, log
from stoker.apps import AppVersion
from stoker.crash_points import Point, reach
from stoker.database import is_passing
from stoker.jobs import Claim, ClaimRequest, QueueKey
from stoker.nodes import RunnerInfo
from worker_node.attempt import Attempt, Attempts, kill_after_s, safe_until
from worker_node.ending import COMMIT_S, finish, outcome_of
from worker_node.engines import Engines
from worker_node.host import AppHost
from worker_node.registration import Identity
from worker_node.run import COMING, Ran, run, slots_of

CALLS_WITHOUT_GPUS = 4
"""How many calls that need no GPU one app may serve at a time. One that waits for another app's job is at no work."""
MOST_WAIT = 200
"""So many calls of an app may wait for other apps' jobs without holding a seat; each is a task and a lease."""

logger = log.get(__name__)


@dataclass
class Seat:
    """``storing``: the outputs of its last job are still on their way. ``waits``: its job waits for another app's."""

    uses_gpus: bool
    is_free: bool = True
    waits: bool = False
    storing: asyncio.Task[None] | None = None

    @property
    def is_storing(self) -> bool:
        return self.storing is not None and not self.storing.done()


def seats_for(version: AppVersion) -> list[Seat]:
    """What the endpoints of an app can keep busy at a time."""
    kinds = {endpoint.uses_gpus for endpoint in version.manifest.endpoints}
    with_gpus = [Seat(uses_gpus=True)] if True in kinds else []
    without = [Seat(uses_gpus=False) for _ in range(CALLS_WITHOUT_GPUS)] if False in kinds else []
    return with_gpus + without


class Executor:
    """All methods belong on the node's loop; ``is_open`` alone may be read from any thread."""

    def __init__(
        self,
        engines: Engines,
        identity: Identity,
        attempts: Attempts,
        host: AppHost,
        version: AppVersion,
        *,
        lease_s: float,
        on_change: Callable[[str], None],
    ) -> None:
        self._engines, self._identity, self._attempts = engines, identity, attempts
        self._host, self.version, self._lease_s, self._on_change = host, version, lease_s, on_change
        self._seats = seats_for(version)
        self._claiming = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()
        self.is_draining = False

    @property
    def app(self) -> str:
        return self.version.app

    @property
    def is_open(self) -> bool:
        """Whether a job of this app could start here now."""
        return any(seat.is_free and self._can_take(seat) for seat in self._seats)

    @property
    def runner(self) -> RunnerInfo:
        """The app's runner as nodes report it."""
        status, spec = self._host.status, self._host.spec
        return RunnerInfo(
            name=self.app,
            app=self.app,
            state=str(status.runner if status.state == "ready" else status.state),
            world_size=slots_of(self._host),
            slots=list(spec.devices or ()),
            pids=[pid for pid in (status.pid, *status.rank_pids) if pid],
        )

    def host_changed(self) -> None:
        """The app host has a new status."""
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
            free = [seat for seat in self._seats if seat.is_free and self._can_take(seat)]
            attempt = await self._claim(free)
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
            seat.is_free = True
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
                ran = await run(self._host, self._engines, attempt, folder=self._folder(attempt))
            seat.waits = False
            reach(Point.NODE_RAN)
            if not ran.has_files:
                return await self._finish_and_claim(seat, attempt, ran)
            await self._stored(seat)  # so that the seat never holds a third lease
            seat.storing = asyncio.create_task(self._store_and_finish(attempt, ran))
            is_storing = True
        finally:
            if not is_storing:
                self._forget(attempt)
        return await self._claim([seat])

    def _wait(self, seat: Seat, attempt: Attempt) -> None:
        """Another job may be claimed in the place of one that waits: it may be the very job that is waited for."""
        waiting = sum(other.waits for other in self._seats if other is not seat)
        seat.waits = attempt.waits_for_children and waiting < MOST_WAIT
        if seat.waits and not any(other.is_free for other in self._seats if not other.uses_gpus):
            self._seats.append(Seat(uses_gpus=False))
        self._on_change(self.app)

    async def _stored(self, seat: Seat) -> None:
        """Wait for the outputs of the seat's last job. What became of them is no matter of the next one."""
        if seat.storing is not None:
            await asyncio.wait([seat.storing])

    async def _finish_and_claim(self, seat: Seat, attempt: Attempt, ran: Ran) -> Attempt | None:
        together = not seat.is_storing and self._can_take(seat)
        asked_at = asyncio.get_running_loop().time()
        with log.about(**attempt.names):
            outcome = await outcome_of(self._engines, attempt, ran)
            then = self._request([seat]) if together else None
            finished = await finish(self._engines, attempt, outcome, ran.usage, then=then)
        self._forget(attempt)
        if finished is not None and finished.next is not None:
            return self._begin(finished.next, asked_at)
        return None if together else await self._claim([seat])

    async def _store_and_finish(self, attempt: Attempt, ran: Ran) -> None:
        try:
            with log.about(**attempt.names):
                outcome = await outcome_of(self._engines, attempt, ran)
                await finish(self._engines, attempt, outcome, ran.usage)
        except Exception:
            logger.exception("result_not_recorded", next="its lease runs out, the job is retried", **attempt.names)
        finally:
            self._forget(attempt)

    async def _claim(self, seats: Sequence[Seat]) -> Attempt | None:
        seats = [seat for seat in seats if self._can_take(seat)]
        if not seats:
            return None
        asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(COMMIT_S):
                claim = await jobs.claim(self._engines.db, self._request(seats))
        except Exception as error:
            if not (is_passing(error) or isinstance(error, TimeoutError)):
                raise
            return None  # the heartbeat says that Postgres is away; the look finds the job later
        if claim is None:
            return None
        reach(Point.NODE_CLAIMED)
        return self._begin(claim, asked_at)

    def _begin(self, claim: Claim, asked_at: float) -> Attempt:
        attempt = Attempt(
            claim, safe_until=safe_until(asked_at, self._lease_s), kill_after_s=kill_after_s(self._lease_s)
        )
        self._attempts.add(attempt)
        logger.info("job_claimed", app=self.app, **attempt.names)
        self._engines.metrics.claimed(claim)
        self._engines.tell(claim.job_id, claim.seq, claim.tenant_id)
        return attempt

    def _request(self, seats: Sequence[Seat]) -> ClaimRequest:
        kinds = sorted({seat.uses_gpus for seat in seats})
        queues = tuple(QueueKey(self.version.id, uses_gpus) for uses_gpus in kinds)
        return ClaimRequest(self._identity.node_id, self._identity.boot_id, queues, self.app, self._lease_s)

    def _can_take(self, seat: Seat) -> bool:
        busy = [other for other in self._seats if not (other.is_free or other.waits or other is seat)]
        if self._host.serves_one_at_a_time and busy:
            return False  # what was claimed a moment ago has not reached the host yet
        if not seat.uses_gpus and sum(not other.uses_gpus for other in busy) >= CALLS_WITHOUT_GPUS:
            return False  # those that waited have come back
        return not self.is_draining and self._host.can_start(seat.uses_gpus)

    def _folder(self, attempt: Attempt) -> Path:
        return self._identity.folder / "inputs" / f"{attempt.claim.job_id}.{attempt.claim.attempt}"

    def _forget(self, attempt: Attempt) -> None:
        self._attempts.remove(attempt)
        shutil.rmtree(self._folder(attempt), ignore_errors=True)

    def _work_ended(self, work: asyncio.Task[None]) -> None:
        self._work.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.error("work_failed", app=self.app, next="leases run out, jobs are retried", exc_info=error)
