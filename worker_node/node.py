"""Node: what runs on one machine, put together and started, drained and stopped in order.

It lives on one asyncio loop in a thread beside Celery's (``worker_node.__main__``). Jobs come to it by doorbells,
through ``answer``, and by its own look at Postgres every two seconds; neither is needed while the other works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from stoker import apps, jobs, log, nodes
from stoker.crash_points import Point, reach
from stoker.database import is_passing, is_unreachable
from stoker.errors import ConfigurationError, NodeLost, StokerError, Unavailable
from stoker.settings import NodeSettings
from worker_node.attempt import Attempts, StopReason
from worker_node.ending import COMMIT_S
from worker_node.engines import Engines
from worker_node.executor import Executor
from worker_node.gpus import Gpu
from worker_node.heartbeat import Heartbeat
from worker_node.host import AppHost, AppSpec, HostStatus
from worker_node.metrics import RunnerStatus
from worker_node.registration import Identity
from worker_node.run import slots_of

PAUSE_S = 1.0

logger = log.get(__name__)


class Node:
    """All methods belong on the node's loop, except ``can_start`` and ``runners``."""

    def __init__(self, settings: NodeSettings, identity: Identity, engines: Engines, gpus: Sequence[Gpu]) -> None:
        self.identity = identity
        self._settings, self._engines, self._gpus = settings, engines, gpus
        self._attempts = Attempts()
        self._hosts: list[AppHost] = []
        self._executors: dict[str, Executor] = {}
        engines.metrics.watch(self.runners, gpus)
        self._tasks: list[asyncio.Task[None]] = []
        self._runners_changed = asyncio.Event()
        self._hurried = asyncio.Event()
        self.refused: list[str] = []
        """One line for each app that was asked for and is not served."""
        self.on_change: Callable[[str], None] = lambda _app: None
        """Called with an app whose ``can_start`` may have changed: the gate's ``changed``."""

    @property
    def apps(self) -> list[str]:
        return list(self._executors)

    def runners(self) -> list[RunnerStatus]:
        """What its apps are doing. From any thread."""
        return [
            RunnerStatus(
                host.manifest.app,
                host.status.runner if host.status.state == "ready" else host.status.state,
                host.status.restarts,
            )
            for host in list(self._hosts)
            if host.manifest is not None
        ]

    def can_start(self, app: str) -> bool:
        """Whether a job of ``app`` could start here now. From any thread."""
        return self._executors[app].is_open

    async def answer(self, app: str) -> asyncio.Task[None] | None:
        """One doorbell: one claim."""
        return await self._executors[app].answer()

    async def start(self, specs: Sequence[AppSpec]) -> None:
        """Give back what the former boot held, start the app hosts, publish their apps and begin to take jobs.

        Raises:
            Unavailable: Postgres cannot be reached.
            AppDefinitionError: none of the apps can be served.
        """
        await asyncio.to_thread(self.identity.clear)
        try:
            for moved in await jobs.release_former_boots(
                self._engines.db, self.identity.node_id, self.identity.boot_id
            ):
                reach(Point.NODE_FORMER_BOOT_RELEASED)
                logger.info("job_taken_back", **moved.names)
                self._engines.metrics.counts.ended(moved.queue, moved.state, NodeLost.code)
                self._engines.tell(moved.job_id, moved.seq, moved.tenant_id, is_final=moved.state.is_final)
                self._engines.doorbell.ring(moved.queue)
            await self._start_apps(specs)
            await self._register()
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
            missed=self._engines.metrics.heartbeats_missed,
        )
        for duty in (heartbeat.run, self._engines.ends.run, self._look, self._listen_for_cancels, self._report_runners):
            self._tasks.append(asyncio.create_task(_keep_up(duty)))
        self._tasks += [asyncio.create_task(self._warm_up(host)) for host in self._hosts if host.min_runners]

    async def stop(self, grace_s: float) -> None:
        """Take nothing more, let what runs finish within ``grace_s``, give the rest back, and end all processes."""
        for app, executor in self._executors.items():
            executor.is_draining = True
            self.on_change(app)
        await self._say("draining")
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
        await self._say("stopped")
        await self._engines.close()

    def hurry(self) -> None:
        """The grace is over."""
        self._hurried.set()

    async def _settle(self) -> Literal[True]:
        await asyncio.gather(*(executor.settle() for executor in self._executors.values()))
        return True

    async def _start_apps(self, specs: Sequence[AppSpec]) -> None:
        started = await asyncio.gather(*(self._start_app(spec) for spec in specs))
        failures = [failure for failure in started if failure is not None]
        if len(failures) == len(specs):
            await asyncio.gather(*(host.stop() for host in self._hosts))
            raise failures[0]

    async def _start_app(self, spec: AppSpec) -> StokerError | None:
        """Serve one app. One that cannot be served is no reason not to serve the others."""
        host = AppHost(spec, on_change=self._host_changed)
        try:
            manifest = await host.start()
            self._check_name(manifest.app)
        except ConfigurationError as error:
            logger.warning("app_not_served", app=spec.import_string, error=str(error), hint=error.hint)
            self.refused.append(f"app {spec.import_string} is not served: {error}")
            await host.stop()
            return error
        version = await apps.publish(self._engines.db, manifest)
        self._hosts.append(host)
        self._executors[manifest.app] = Executor(
            self._engines,
            self.identity,
            self._attempts,
            host,
            version,
            lease_s=self._settings.lease_s,
            on_change=lambda app: self.on_change(app),
        )
        logger.info("app_published", app=manifest.app, version=version.hash[:12])
        return None

    def _check_name(self, app: str) -> None:
        if app in self._executors:
            raise ConfigurationError(f"two apps are named {app!r}", hint="Give each a name of its own.")

    async def _register(self) -> None:
        info = self.identity.info(
            gpus=self._gpus,
            slots=len(self._gpus) or sum(slots_of(host) for host in self._hosts),
            versions=[executor.version.id for executor in self._executors.values()],
            lease_s=self._settings.lease_s,
        )
        await nodes.register(self._engines.db, info)
        reach(Point.NODE_REGISTERED)
        logger.info("node_registered", node_id=info.node_id, boot_id=str(info.boot_id), apps=self.apps)

    async def _warm_up(self, host: AppHost) -> None:
        try:
            await host.warm_up()
        except StokerError as error:
            logger.warning("ranks_not_warm", error=str(error), hint=error.hint, next="the first job starts them")

    def _host_changed(self, _: HostStatus) -> None:
        self._runners_changed.set()
        for executor in self._executors.values():
            executor.host_changed()

    async def _look(self) -> None:
        """What no doorbell has said: a lost one costs this long at most."""
        while True:
            await asyncio.sleep(self._settings.look_s)
            for executor in self._executors.values():
                while executor.is_open and await executor.answer() is not None:
                    pass
                self.on_change(executor.app)

    async def _listen_for_cancels(self) -> None:
        async for job_id in self._engines.bus.listen_cancels(self.identity.node_id):
            self._attempts.cancel(job_id)

    async def _report_runners(self) -> None:
        while True:
            await self._runners_changed.wait()
            self._runners_changed.clear()
            runners = [executor.runner for executor in self._executors.values()]
            try:
                await nodes.report_runners(self._engines.db, self.identity.node_id, self.identity.boot_id, runners)
            except Exception:
                self._runners_changed.set()
                raise

    async def _say(self, state: nodes.NodeState) -> None:
        try:
            async with asyncio.timeout(COMMIT_S):
                await nodes.set_state(self._engines.db, self.identity.node_id, self.identity.boot_id, state)
        except Exception as error:
            if not (is_passing(error) or isinstance(error, TimeoutError)):
                raise
            logger.warning("state_not_reported", state=state, error=str(error)[:300])


async def _keep_up(duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a duty for ever: a surprise in one turn of it must not leave the node without it."""
    while True:
        try:
            await duty()
        except Exception as error:
            if is_unreachable(error):
                logger.debug("duty_paused", duty=duty.__name__, error=str(error)[:300])
            else:
                logger.exception("duty_failed", duty=duty.__name__, next="begins again")
            await asyncio.sleep(PAUSE_S)
