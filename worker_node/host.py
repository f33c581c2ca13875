"""AppHost: the supervisor's side of an app's process. Starts it, calls it, cancels it, replaces it when it dies.

Runs no user code and waits for none: a child that blocks, exits or prints nonsense ends its own calls with
``WorkerCrashed`` and nothing else. The node and its executor call it; ``worker_node.apphost`` is the other end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any, get_args

from stoker import log
from stoker.errors import AppDefinitionError, CrashedBeside, StokerError, WorkerCrashed
from stoker.manifest import Manifest
from worker_node.apphost import failures, protocol
from worker_node.apphost.protocol import Message
from worker_node.backoff import pause_before
from worker_node.host_call import PendingCall
from worker_node.host_process import HostProcess
from worker_node.host_values import (
    AppReplaced,
    AppSpec,
    HostCall,
    HostEvent,
    HostResult,
    HostStatus,
    LocalFile,
    RunnerState,
    without_credentials,
)
from worker_node.suspicion import Suspicion

__all__ = ["AppHost", "AppReplaced", "AppSpec", "HostCall", "HostEvent", "HostResult", "HostStatus", "LocalFile"]

logger = log.get(__name__)

LOAD_TIMEOUT_S = 600.0
STEADY_S = 60.0
"""A child that lived this long was well: its end is the first failure in a row."""
MAX_LIGHT_CALLS = 8
"""Calls at once of endpoints that use no GPUs."""


class AppHost:
    """One app on this node. ``on_change`` hears each new status, in the event loop.

    ``manifest``, ``min_runners`` and ``keep_alive_s`` are the app's, once ``start`` has returned.
    """

    def __init__(self, spec: AppSpec, *, on_change: Callable[[HostStatus], None]) -> None:
        self.spec = spec
        self.manifest: Manifest | None = None
        self.min_runners = 1
        self.keep_alive_s: float | None = None
        self.status = HostStatus("down", "none", None, (), 0)
        self._env, self._on_change = without_credentials(spec.env), on_change
        self._process: HostProcess | None = None
        self._spawned_at = 0.0
        self._failures = self._rank_failures = 0
        self._wants_warm = self._is_broken = self._is_stopping = self._was_killed = False
        self._refusal: protocol.Refused | None = None
        self._loaded: asyncio.Future[Manifest] | None = None
        self._warmed: list[asyncio.Future[None]] = []
        self._pending: dict[str, PendingCall] = {}
        self._suspicion = Suspicion()
        self._usable = asyncio.Event()

    @property
    def serves_one_at_a_time(self) -> bool:
        """Whether a call must be alone in the child: one of several has killed it, and which one is to be found out."""
        return self._suspicion.is_on(time.monotonic())

    def can_start(self, uses_gpus: bool) -> bool:
        """Whether a call of an endpoint that does or does not use GPUs could start now."""
        at_work = [each for each in self._pending.values() if not each.waits]
        if self.status.state != "ready" or self._is_stopping or (at_work and self.serves_one_at_a_time):
            return False
        alike = sum(each.uses_gpus == uses_gpus for each in at_work)
        return alike == 0 and self.status.runner in ("none", "warm") if uses_gpus else alike < MAX_LIGHT_CALLS

    async def start(self) -> Manifest:
        """Start the child and have it import the app.

        Raises:
            AppDefinitionError: it could not; message and hint are the child's.
        """
        self._loaded = asyncio.get_running_loop().create_future()
        self._spawn()
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                return await self._loaded
        except TimeoutError as error:
            await self.stop(0)
            hint = "Do slow things in the worker's setup, not when the module is imported."
            message = f"{self.spec.import_string} was not imported within {LOAD_TIMEOUT_S:g} s"
            raise AppDefinitionError(message, hint=hint) from error

    async def warm_up(self) -> None:
        """Start the ranks now, and again by itself whenever the child was replaced.

        Raises:
            AppError, WorkerCrashed: they could not be started.
        """
        await self._until_usable()
        self._wants_warm = True
        warmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._warmed.append(warmed)
        self._send(protocol.WarmUp())
        await warmed

    async def call(self, call: HostCall) -> HostResult:
        """Serve one call. Cancelling the task that awaits it cancels the call.

        Raises:
            AppError, WorkerCrashed, JobCancelled, InvalidInput, InvalidFile: and what ``fetch`` raised.
            AppReplaced: the child was ended because of another call; this one did nothing wrong.
            CrashedBeside: the child died under several calls.
        """
        await self._until_usable()
        uses_gpus = self.manifest is not None and self.manifest.endpoint(call.endpoint).uses_gpus
        folder = self.spec.spool.resolve() / "calls" / re.sub(r"\W", "-", call.call_id)
        pending = PendingCall(call, uses_gpus, folder, self._send, self._kill)
        self._pending[call.call_id] = pending
        self._suspicion.begins(call.job_id)
        pending.outcome.add_done_callback(lambda _: self._pending.pop(call.call_id, None))
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
        pending = self._pending.get(call_id)
        if pending is not None:
            pending.cancel(within_s)
        return pending is not None

    async def stop(self, grace_s: float = 10) -> None:
        """End the child: in order within the grace, then by force."""
        self._is_stopping = True
        self._usable.set()
        process = self._process
        if process is None:
            return
        self._send(protocol.Stop(grace_s))
        try:
            async with asyncio.timeout(grace_s):
                await process.ended.wait()
        except TimeoutError:
            process.kill()
            await process.ended.wait()

    async def _until_usable(self) -> None:
        await self._usable.wait()
        if self._is_stopping:
            raise WorkerCrashed("the app was stopped", hint="The node is ending.")

    def _spawn(self) -> None:
        if self._is_stopping:
            return
        self.spec.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._refusal, self._was_killed, self._spawned_at = None, False, time.monotonic()
        process = self._process = HostProcess(
            self.spec.import_string, self._env, self._receive, self._ended, self._at_work
        )
        devices = None if self.spec.devices is None else list(self.spec.devices)
        spool = str(self.spec.spool.resolve())
        self._send(protocol.Load(self.spec.import_string, self.spec.world_size, devices, spool))
        self._change(state="starting", pid=process.pid)

    def _spawn_again(self) -> None:
        try:
            self._spawn()
        except OSError as error:  # no process, no descriptor, no space: for now
            self._failures += 1
            pause_s = pause_before(self._failures)
            tells = {"problem": str(error), "tried_again_in_s": pause_s}
            logger.warning("app_host_not_started", app=self.spec.import_string, **tells)
            asyncio.get_running_loop().call_later(pause_s, self._spawn_again)

    def _send(self, message: Message) -> None:
        if self._process is not None:
            self._process.send(message)

    def _at_work(self) -> dict[str, object]:
        """The job in work, for log lines; with several no line is any one's."""
        calls = [pending.call.names for pending in self._pending.values()]
        return {**calls[0]} if len(calls) == 1 else {"jobs": [each["job_id"] for each in calls]} if calls else {}

    def _kill(self) -> None:
        """End the child because of us, which is no failure of its own."""
        self._was_killed = True
        if self._process is not None:
            self._process.kill()

    def _receive(self, message: Message) -> None:
        match message:
            case protocol.Loaded():
                self._take_manifest(message)
            case protocol.Refused():
                self._refusal = message
            case protocol.Ready():
                self._change(state="ready")
                self._usable.set()
                if self._wants_warm:
                    self._send(protocol.WarmUp())
            case protocol.Ranks(state=state, pids=pids):
                self._take_ranks(state, tuple(pids))
            case protocol.WarmedUp(error=error):
                self._take_warmth(None if error is None else failures.revive(error))
            case _:
                pending = self._pending.get(getattr(message, "call_id", ""))
                if pending is not None:
                    pending.take(message)
                    if pending.outcome.done():
                        self._suspicion.clears(pending.call.job_id)

    def _take_manifest(self, loaded: protocol.Loaded) -> None:
        manifest = Manifest.from_json(loaded.manifest)
        if self.manifest is not None and self.manifest.schema_hash != manifest.schema_hash:
            logger.error("app_has_changed", app=manifest.app, then="it stays down", hint="Restart the node.")
            self._is_stopping = True
            self._kill()
            return
        self.manifest, self.min_runners, self.keep_alive_s = manifest, loaded.min_runners, loaded.keep_alive_s
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_result(manifest)

    def _take_ranks(self, state: str, pids: tuple[int, ...]) -> None:
        if state in ("broken", "warm"):
            self._is_broken = state == "broken"
        shown = "broken" if state == "none" and self._is_broken else state
        self._change(runner=next(name for name in get_args(RunnerState) if name == shown), rank_pids=pids)
        if state == "broken":
            self._warm_up_later()

    def _take_warmth(self, error: StokerError | None) -> None:
        if error is None:
            self._rank_failures = 0
        waiting, self._warmed = self._warmed, []
        for warmed in waiting:
            if not warmed.done():
                warmed.set_result(None) if error is None else warmed.set_exception(error)
        if error is not None and not waiting:
            logger.error("ranks_could_not_be_started", app=self.spec.import_string, problem=str(error))
            self._warm_up_later()

    def _warm_up_later(self) -> None:
        """Try again by ourselves, so that a cause that has gone needs no restart of the node."""
        self._rank_failures += 1
        pause_s = pause_before(self._rank_failures + 2)
        asyncio.get_running_loop().call_later(pause_s, self._send, protocol.WarmUp())

    def _ended(self, exit_code: int) -> None:
        process, refusal = self._process, self._refusal
        self._process = None
        self._is_broken = False
        self._usable.clear()
        last = "" if process is None else "\n".join(process.last_lines)
        problem = f"the app's process ended with exit code {exit_code}"
        if self._loaded is not None and not self._loaded.done():
            self._is_stopping = True
            text, hint = (refusal.problem, refusal.hint) if refusal else (f"{problem} while it was imported", last)
            self._loaded.set_exception(AppDefinitionError(text, hint=hint or None))
        error: StokerError = WorkerCrashed(problem if refusal is None else refusal.problem, hint=last[-2000:] or None)
        # A call that waits for another app's job is not to blame, unless nobody else is there.
        at_work = [each for each in self._pending.values() if not each.waits] or list(self._pending.values())
        if self._was_killed:
            error = AppReplaced("the app's process was ended because of another call")
        else:
            self._suspicion.cast([each.call.job_id for each in self._pending.values()], time.monotonic())
            if len(at_work) > 1:
                error = CrashedBeside(f"{problem} while it served {len(at_work)} jobs")
        for pending in list(self._pending.values()):
            pending.lose(error if pending in at_work else AppReplaced(f"{problem}, while this job waited for another"))
        if self._warmed:
            self._take_warmth(error)
        restarts = self.status.restarts + (not self._is_stopping)
        self._change(state="down", runner="none", rank_pids=(), pid=None, restarts=restarts)
        if self._is_stopping:
            self._usable.set()
            return
        is_new = self._was_killed or time.monotonic() - self._spawned_at > STEADY_S
        self._failures = 1 if is_new else self._failures + 1
        pause_s = pause_before(self._failures)
        logger.error("app_host_ended", app=self.spec.import_string, exit_code=exit_code, restart_in_s=pause_s)
        asyncio.get_running_loop().call_later(pause_s, self._spawn_again)

    def _change(self, **changes: Any) -> None:
        before, self.status = self.status, dataclasses.replace(self.status, **changes)
        if before != self.status:
            self._on_change(self.status)
