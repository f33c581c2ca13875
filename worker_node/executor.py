"""Executor: the jobs of one app on this node, as the consumer and the node see it: open or not, asked for a claim.

A seat is what a job occupies (``worker_node.seats``); what happens on it from its first job on is ``worker_node.work``.
What may happen to a job is ``stoker.jobs``'s to say; when to ask for one is the consumer's and the node's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from stoker import log
from stoker.apps import AppVersion
from stoker.nodes import RunnerInfo
from worker_node.attempt import Attempts
from worker_node.claims import Claims
from worker_node.engines import Engines
from worker_node.host import AppHost
from worker_node.placement import Placement
from worker_node.quarantine import Quarantine
from worker_node.registration import Identity
from worker_node.run import COMING
from worker_node.seats import Seats
from worker_node.work import Work

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
        ahead_below_s: float,
        on_change: Callable[[str], None],
        on_rest: Callable[[str, float], None],
    ) -> None:
        self._attempts = attempts
        self._host, self.version, self._placement, self._on_change = host, version, placement, on_change
        rest = partial(on_rest, version.app)
        self._seats = Seats(version, host, placement, gpus, rest, most_waiting=engines.most_waiting)
        self._claims = Claims(engines, identity, attempts, version, self._seats, placement, lease_s=lease_s)
        changed = partial(on_change, version.app)
        self._work = Work(
            engines,
            identity,
            attempts,
            host,
            placement,
            self._seats,
            self._claims,
            ahead_below_s=ahead_below_s,
            on_change=changed,
        )
        self._claiming = asyncio.Lock()
        self._works: set[asyncio.Task[None]] = set()

    @property
    def app(self) -> str:
        return self.version.app

    @property
    def is_open(self) -> bool:
        """Whether a job of this app could start here now."""
        return any(self._seats.can_take(seat) for seat in self._seats.free)

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
                if attempt.claim.app == self.app and attempt.claim.uses_gpus and attempt.is_begun:
                    if self._host.status.runner in COMING:
                        attempt.pause_clocks()
                    else:
                        attempt.start_clocks()
        self._on_change(self.app)

    async def answer(self) -> asyncio.Task[None] | None:
        """Claim one job and start to work. The task ends when its seat has no more to do; None: there was nothing."""
        async with self._claiming:
            free = self._seats.free
            attempt = await self._claims.claim(free)
            if attempt is None:
                return None
            seat = next(seat for seat in free if seat.uses_gpus is attempt.claim.uses_gpus)
            seat.is_free = False
        work = asyncio.create_task(self._work.on(seat, attempt), name=f"{self.app} {attempt.claim.job_id}")
        self._works.add(work)
        work.add_done_callback(self._work_ended)
        self._on_change(self.app)
        return work

    async def settle(self) -> None:
        """Wait until all work has ended."""
        while self._works:
            await asyncio.wait(self._works)

    def _work_ended(self, work: asyncio.Task[None]) -> None:
        self._works.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.error("work_failed", app=self.app, next="leases run out, jobs are retried", exc_info=error)
