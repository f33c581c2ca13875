"""AppHost: the supervisor's side of an app's process. Starts it, calls it, cancels it, replaces it when it dies.

Runs no user code and waits for none: a child that blocks, exits or prints nonsense ends its own calls with
``WorkerCrashed`` and nothing else. The node and its executor call it; ``worker_node.apphost`` is the other end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from stoker import log
from stoker.errors import AppDefinitionError, WorkerCrashed
from stoker.manifest import Manifest
from worker_node.apphost import failures, protocol
from worker_node.apphost.protocol import Message
from worker_node.backoff import pause_before
from worker_node.host_calls import HostCalls
from worker_node.host_loading import HostLoading
from worker_node.host_process import HostProcess
from worker_node.host_ranks import HostRanks
from worker_node.host_remains import RanksRemain, Remains
from worker_node.host_values import AppReplaced, AppSpec, HostCall, HostEvent, HostResult, HostStatus, LocalFile

__all__ = ["AppHost", "AppReplaced", "AppSpec", "HostCall", "HostEvent", "HostResult", "HostStatus", "LocalFile"]

logger = log.get(__name__)

STEADY_S = 60.0
"""A child that lived this long was well: its end is the first failure in a row."""


class AppHost:
    """One app on this node. ``on_change`` hears each new status, in the event loop."""

    def __init__(self, spec: AppSpec, *, on_change: Callable[[HostStatus], None]) -> None:
        self.spec = spec
        self.loading = HostLoading(spec.import_string)
        self.status = HostStatus("down", "none", None, (), 0)
        self._on_change = on_change
        self._process: HostProcess | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._spawned_at, self._failures = 0.0, 0
        self._is_stopping = self._was_killed = False
        self._remains = Remains(spec.import_string)
        self._ranks = HostRanks(spec.import_string, self._send)
        self._calls = HostCalls(spec, self._send, self._kill)
        self._usable = asyncio.Event()

    @property
    def manifest(self) -> Manifest | None:
        """The app's, once ``start`` has returned."""
        return self.loading.manifest

    @property
    def size(self) -> int:
        """How many slots the app's ranks take, once ``start`` has returned; 0: it has none."""
        wanted = self.manifest.num_gpus if self.manifest is not None else 0
        return (self.spec.world_size or wanted) if wanted else 0

    @property
    def serves_one_at_a_time(self) -> bool:
        """Whether a call must be alone in the child: one of several has killed it, and which one is to be found out."""
        return self._calls.are_one_at_a_time

    def can_start(self, uses_gpus: bool) -> bool:
        """Whether a call of an endpoint that does or does not use GPUs could start now."""
        if self.status.state != "ready" or self._is_stopping:
            return False
        if not self._calls.have_room(uses_gpus=uses_gpus, most=self.loading.max_multiplexing):
            return False
        return not uses_gpus or self.status.runner in ("none", "warm")

    async def start(self) -> Manifest:
        """Start the child and have it import the app.

        Raises:
            AppDefinitionError: it could not; message and hint are the child's.
        """
        loaded = self.loading.begin()
        self._spawn()
        try:
            return await loaded
        except AppDefinitionError:
            await self.stop(0)
            raise

    def place(self, devices: Sequence[int] | None, *, stay_warm: bool = False) -> None:
        """Say where the ranks may be: on these of the GPUs that the node sees; None: anywhere, on a machine without.

        They start with the first call that needs them; ``stay_warm``: now, and again whenever the child was replaced.
        """
        self._ranks.place(devices)
        if stay_warm:
            self._ranks.stay_warm()

    async def warm_up(self) -> None:
        """Start the ranks, which have their place, now, and again by itself whenever the child was replaced.

        Raises:
            AppError, WorkerCrashed: they could not be started.
        """
        await self._until_usable()
        await self._ranks.warm_up()

    async def vacate(self) -> None:
        """End the ranks; when it returns none of their processes is left. No call that needs them is under way.

        Raises:
            RanksRemain: some are; their GPUs are not free.
        """
        process = self._process
        were_ended = await self._ranks.vacate()
        await self._remains.end(ranks_of=None if were_ended or process is None else process.pid)
        self._change(runner="none", rank_pids=())  # ranks that were broken say nothing when they end

    async def call(self, call: HostCall) -> HostResult:
        """Serve one call. Cancelling the task that awaits it cancels the call.

        Raises:
            AppError, WorkerCrashed, JobCancelled, InvalidInput, InvalidFile: and what ``fetch`` raised.
            AppReplaced: the child was ended because of another call; this one did nothing wrong.
            CrashedBeside: the child died under several calls.
        """
        await self._until_usable()
        uses_gpus = self.manifest is not None and self.manifest.endpoint(call.endpoint).uses_gpus
        pending = self._calls.begin(call, uses_gpus=uses_gpus)
        try:
            return await asyncio.shield(pending.outcome)
        except asyncio.CancelledError:
            pending.cancel()
            raise

    async def cancel(self, call_id: str, *, within_s: float | None = None) -> bool:
        """Ask a call to stop and see to it that it does. ``call`` then raises ``JobCancelled``; this does not wait.

        ``within_s``: the child is ended if the call lasts longer, also where it is about to stop.
        False: the child was not asked to work on it yet, or it has ended. Whoever awaits it may cancel that.
        """
        return self._calls.cancel(call_id, within_s)

    async def stop(self, grace_s: float = 10) -> None:
        """End the child: in order within the grace, then by force."""
        self._is_stopping = True
        self._usable.set()
        if (process := self._process) is None:
            if self._restarting is not None:
                self._restarting.cancel()
            return
        self._send(protocol.Stop(grace_s))
        try:
            async with asyncio.timeout(grace_s):
                await process.ended.wait()
        except TimeoutError:
            process.kill()
            await process.ended.wait()

    def is_over(self, job_id: UUID) -> None:
        """The job is final: it will not come back, so nobody needs to look out for it."""
        self._calls.is_over(job_id)

    async def _until_usable(self) -> None:
        await self._usable.wait()
        if self._is_stopping:
            raise WorkerCrashed("the app was stopped", hint="The node is ending.")

    def _spawn(self) -> None:
        if self._is_stopping:
            return
        self.spec.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.loading.refusal, self._was_killed, self._spawned_at = None, False, time.monotonic()
        process = self._process = HostProcess(
            self.spec.import_string, self.spec.env, self._receive, self._ended, lambda: self._calls.names
        )
        self._send(protocol.Load(self.spec.import_string, self.spec.world_size, str(self.spec.spool.resolve())))
        self._ranks.came_up()
        self._change(state="starting", pid=process.pid)

    async def _restart(self) -> None:
        """Start another child after a pause, once nothing of the last one's ranks holds a GPU any more."""
        await asyncio.sleep(pause_before(self._failures))
        try:
            await self._remains.end()
            self._spawn()
        except (OSError, RanksRemain) as error:  # no process, no descriptor, no space, no GPU: for now
            self._failures += 1
            tells = {"problem": str(error), "tried_again_in_s": pause_before(self._failures)}
            logger.warning("app_host_not_started", app=self.spec.import_string, **tells)
            self._restarting = asyncio.create_task(self._restart())

    def _send(self, message: Message) -> None:
        if self._process is not None:
            self._process.send(message)

    def _kill(self) -> None:
        """End the child because of us, which is no failure of its own."""
        self._was_killed = True
        if self._process is not None:
            self._process.kill()

    def _receive(self, message: Message) -> None:
        match message:
            case protocol.Loaded():
                if not self.loading.take(message):
                    self._is_stopping = True
                    self._kill()
            case protocol.Refused():
                self.loading.refusal = message
            case protocol.Ready():
                self._calls.came_up()
                self._change(state="ready")
                self._usable.set()
            case protocol.Ranks(state=state, pids=pids):
                runner = self._ranks.changed(state)
                self._change(runner=runner, rank_pids=() if runner == "none" else tuple(pids))
            case protocol.WarmedUp(error=error):
                self._ranks.warmed_up(None if error is None else failures.revive(error))
            case protocol.Vacated():
                self._ranks.vacated()
            case _:
                self._calls.take(message)

    def _ended(self, exit_code: int) -> None:
        process, self._process, refusal = self._process, None, self.loading.refusal
        self._usable.clear()
        self._remains.are_of([] if process is None else [process.pid])
        last = "" if process is None else "\n".join(process.last_lines)
        problem = f"the app's process ended with exit code {exit_code}"
        self._is_stopping = self._is_stopping or self.loading.has_failed(problem, last)
        error = WorkerCrashed(problem if refusal is None else refusal.problem, hint=last[-2000:] or None)
        self._calls.went_down(problem, error, was_killed=self._was_killed)
        self._ranks.went_down(error)
        restarts = self.status.restarts + (not self._is_stopping)
        self._change(state="down", runner="none", rank_pids=(), pid=None, restarts=restarts)
        if self._is_stopping:
            self._usable.set()
            return
        is_new = self._was_killed or time.monotonic() - self._spawned_at > STEADY_S
        self._failures = 1 if is_new else self._failures + 1
        tells = {"exit_code": exit_code, "restart_in_s": pause_before(self._failures)}
        logger.error("app_host_ended", app=self.spec.import_string, **tells)
        self._restarting = asyncio.create_task(self._restart())

    def _change(self, **changes: Any) -> None:
        before, self.status = self.status, dataclasses.replace(self.status, **changes)
        if before != self.status:
            self._on_change(self.status)
