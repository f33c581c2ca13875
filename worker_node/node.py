"""Node: what runs on one machine, put together and started, drained and stopped in order.

It lives on one asyncio loop in a thread beside Celery's (``worker_node.__main__``). Jobs come to it by doorbells,
through ``answer``, and by its own look at Postgres every two seconds; neither is needed while the other works. Which
app has which slots is ``worker_node.placement``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from stoker import jobs, log
from stoker.apps import AppVersion
from stoker.crash_points import Point, reach
from stoker.database import is_unreachable
from stoker.errors import NodeLost, Unavailable
from stoker.settings import NodeSettings
from worker_node.attempt import Attempts, StopReason
from worker_node.doors import Doors
from worker_node.duty import keep_up
from worker_node.engines import Engines
from worker_node.executor import Executor
from worker_node.gpus import Gpu
from worker_node.heartbeat import Heartbeat
from worker_node.host import AppHost, AppSpec
from worker_node.look import Look
from worker_node.metrics import RunnerStatus
from worker_node.opening import open_apps
from worker_node.placement import Placement
from worker_node.presence import Presence
from worker_node.quarantine import Quarantine
from worker_node.registration import Identity
from worker_node.slots import Slots

logger = log.get(__name__)


class Node:
    """All methods belong on the node's loop, except ``can_start`` and ``runners``."""

    def __init__(self, settings: NodeSettings, identity: Identity, engines: Engines, gpus: Sequence[Gpu]) -> None:
        self.identity = identity
        self._settings, self._engines, self._gpus = settings, engines, gpus
        self._attempts = Attempts()
        self._hosts: list[AppHost] = []
        self._executors: dict[str, Executor] = {}
        self._doors = Doors(self._executors, lambda app: self.on_change(app))
        self._placement: Placement | None = None
        engines.metrics.watch(self.runners, gpus)
        self._presence = Presence(engines.db, identity, lambda: [one.runner for one in self._executors.values()])
        self._tasks: list[asyncio.Task[None]] = []
        self._hurried = asyncio.Event()
        self.refused: list[str] = []
        """One line for each app that was asked for and is not served."""
        self.on_change: Callable[[str], None] = lambda _app: None
        """Called with an app whose ``can_start`` may have changed: the gate's ``changed``."""
        self.on_drain: Callable[[], None] = lambda: None
        """Called when an admin has asked the node to drain: the process ends itself in order."""

    @property
    def apps(self) -> list[str]:
        return list(self._executors)

    def runners(self) -> list[RunnerStatus]:
        """What its apps are doing. From any thread."""
        executors = list(self._executors.values())
        return [RunnerStatus(one.app, one.runner.state, one.restarts, len(one.runner.slots)) for one in executors]

    def can_start(self, app: str) -> bool:
        """Whether a job of ``app`` could start here now. From any thread."""
        return self._doors.is_open(app)

    async def answer(self, app: str) -> asyncio.Task[None] | None:
        """One doorbell: one claim."""
        try:
            return await self._executors[app].answer()
        finally:
            self._doors.changed(app)

    async def start(self, specs: Sequence[AppSpec]) -> None:
        """Give back what the former boot held, start the app hosts, publish their apps and begin to take jobs.

        Raises:
            Unavailable: Postgres cannot be reached.
            ConfigurationError: none of the apps can be served.
        """
        await asyncio.to_thread(self.identity.clear)
        try:
            for moved in await jobs.release_former_boots(
                self._engines.db, self.identity.node_id, self.identity.boot_id
            ):
                reach(Point.NODE_FORMER_BOOT_RELEASED)
                logger.info("job_taken_back", **moved.names)
                self._engines.metrics.counts.ended(moved.queue, moved.state, NodeLost.code)
                self._engines.tell_given_back(moved)
            placement = await self._open(specs)
        except Exception as error:
            if not is_unreachable(error):
                raise
            raise Unavailable(
                f"Postgres cannot be reached: {error}",
                hint="Check DATABASE_URL, and that 'stoker migrate' has been run there.",
            ) from error
        heartbeat = Heartbeat(
            self._engines.db,
            self.identity,
            self._attempts,
            every_s=self._settings.heartbeat_s,
            lease_s=self._settings.lease_s,
            on_return=self._engines.tell_given_back,
            missed=self._engines.metrics.heartbeats_missed,
        )
        look = Look(
            self._engines.db,
            self.identity.node_id,
            placement,
            self._executors,
            every_s=self._settings.look_s,
            on_change=self._doors.changed,
        )
        duties = (
            heartbeat.run,
            self._engines.ends.run,
            look.run,
            look.give_turns,
            self._listen_for_cancels,
            self._presence.report_runners,
            self._heed_drain,
        )
        self._tasks += [asyncio.create_task(keep_up(duty)) for duty in duties]

    async def stop(self, grace_s: float) -> None:
        """Take nothing more, let what runs finish within ``grace_s``, give the rest back, and end all processes."""
        for executor in self._executors.values():
            executor.drain()
        placement = self._placement
        if placement is not None:
            placement.drain()
        await self._presence.say("draining")
        logger.info("draining", running=len(self._attempts), grace_s=grace_s)
        settled = asyncio.create_task(self._settle())
        hurry = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({settled, hurry}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for attempt in self._attempts:
            attempt.stop(StopReason.DRAIN)
        await settled
        await asyncio.gather(*(host.stop() for host in self._hosts))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if placement is not None:
            await placement.settle()
        await self._presence.say("stopped")
        await self._engines.close()

    def hurry(self) -> None:
        """The grace is over."""
        self._hurried.set()

    async def _settle(self) -> Literal[True]:
        await asyncio.gather(*(executor.settle() for executor in self._executors.values()))
        return True

    async def _open(self, specs: Sequence[AppSpec]) -> Placement:
        most = len(self._gpus) or self._settings.slots
        are_gpus = bool(self._gpus)
        opened = await open_apps(self._engines.db, specs, slots=most, are_gpus=are_gpus, on_change=self._hosts_changed)
        self.refused, self._hosts = opened.refused, [host for host, _ in opened.served]
        slots = Slots(most or sum(host.size for host in self._hosts), self._settings.yield_after_s)
        for host, version in opened.served:
            if host.size:
                slots.add(
                    version.app, host.size, keeps=host.loading.min_runners > 0, keep_alive_s=host.loading.keep_alive_s
                )
        self._engines.metrics.slots.set(slots.count)
        placement = self._placement = Placement(
            slots,
            {version.app: host for host, version in opened.served},
            are_gpus=are_gpus,
            on_change=self._slots_changed,
            on_eviction=self._engines.metrics.evicted,
            on_no_slots=self._attempts.have_no_slots,
        )
        gpus = Quarantine(apps=2, on_begin=self._rest_gpus)
        for host, version in opened.served:
            self._executors[version.app] = self._executor(host, version, placement, gpus)
        await self._presence.register(
            gpus=self._gpus,
            slots=slots.count,
            versions=[version.id for _, version in opened.served],
            lease_s=self._settings.lease_s,
        )
        placement.begin()
        for app in self._executors:
            self._doors.changed(app)
        return placement

    def _executor(self, host: AppHost, version: AppVersion, placement: Placement, gpus: Quarantine) -> Executor:
        return Executor(
            self._engines,
            self.identity,
            self._attempts,
            host,
            version,
            placement,
            gpus,
            lease_s=self._settings.lease_s,
            ahead_below_s=self._settings.ahead_below_s,
            on_change=self._doors.changed,
            on_rest=self._rest,
        )

    def _hosts_changed(self) -> None:
        self._presence.runners_changed.set()
        for app, executor in self._executors.items():
            if self._placement is not None:
                self._placement.host_changed(app)
            executor.host_changed()

    def _slots_changed(self, app: str) -> None:
        self._presence.runners_changed.set()
        self._doors.changed(app)

    def _rest(self, app: str, for_s: float) -> None:
        """Too many jobs of the app have crashed here: others wait or go elsewhere, until it is tried again."""
        logger.error("app_quarantined", app=app, for_s=for_s, next="is tried again one job at a time")
        self._engines.metrics.quarantined(app)
        asyncio.get_running_loop().call_later(for_s, self._slots_changed, app)
        self._slots_changed(app)

    def _rest_gpus(self, for_s: float) -> None:
        """Jobs of several apps have found GPUs failed: no app's jobs are claimed that need some."""
        logger.error("gpus_quarantined", for_s=for_s, next="are tried again")
        for app, executor in self._executors.items():
            if executor.uses_gpus:
                self._rest(app, for_s)

    async def _heed_drain(self) -> None:
        await self._presence.heed_drain(self._settings.look_s, lambda: self.on_drain())

    async def _listen_for_cancels(self) -> None:
        async for job_id in self._engines.bus.listen_cancels(self.identity.node_id):
            self._attempts.cancel(job_id)
