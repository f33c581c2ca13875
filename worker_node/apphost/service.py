"""Service: an app host at work. Loads the app, then does what the supervisor's messages ask, until told to stop.

Several calls may be served at once; those that use ranks take turns in the runner. Decides nothing about jobs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Coroutine, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from stoker.app import App
from stoker.errors import AppDefinitionError, JobCancelled
from worker_node.apphost import failures, protocol
from worker_node.apphost.link import Link
from worker_node.apphost.loading import load_app
from worker_node.apphost.own_ranks import OwnRanks
from worker_node.apphost.ranks import AppRanks
from worker_node.apphost.served_call import ServedCall
from worker_node.distributed import RankLog

log = logging.getLogger("worker_node.apphost")


class Service:
    """One app host."""

    def __init__(self, link: Link, environ: MutableMapping[str, str]) -> None:
        self._link, self._environ = link, environ
        self._spool = Path()
        self._ranks: AppRanks | OwnRanks | None = None
        self._calls: dict[str, ServedCall] = {}
        self._tending: set[asyncio.Task[None]] = set()

    async def serve(self) -> int:
        """Serve until told to stop; the exit code of the process."""
        load = await self._link.inbox.get()
        if not isinstance(load, protocol.Load):
            raise protocol.ProtocolViolationError(f"{type(load).__name__} came first")
        try:
            app = await self._load(load)
        except AppDefinitionError as error:
            self._link.send(protocol.Refused(str(error), error.hint))
            return 1
        while not isinstance(message := await self._link.inbox.get(), protocol.Stop):
            self._handle(app, message)
        await self._stop(app, message.grace_s)
        return 0

    async def _load(self, load: protocol.Load) -> App:
        self._spool = Path(load.spool)
        scratch = self._spool / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        tempfile.tempdir = os.environ["TMPDIR"] = str(scratch)
        app_class = load_app(load.import_string)
        manifest = app_class.manifest().to_json()
        self._link.send(
            protocol.Loaded(manifest, app_class.min_runners, app_class.keep_alive, app_class.max_multiplexing)
        )
        try:
            app = app_class()
            if not app_class.owns_ranks:
                await app.setup()
        except Exception as error:
            described = failures.describe(error)
            raise AppDefinitionError(
                f"setup of {app_class.name} failed: {described['message']}", hint=described["traceback"]
            ) from error
        world_size = load.world_size or app_class.num_gpus
        if app_class.owns_ranks:
            vars(app)["num_gpus"] = world_size  # what its setup makes its runner with
            self._ranks = OwnRanks(app, self._environ, on_change=self._tell, on_log=self._hear)
        elif app_class.worker is not None:
            args = setup_args(app_class, self._environ)
            self._ranks = AppRanks(app_class.worker, world_size, args, on_change=self._tell, on_log=self._hear)
        self._link.send(protocol.Ready())
        return app

    def _handle(self, app: App, message: protocol.Message) -> None:
        match message:
            case protocol.Start(call_id=call_id):
                folder = self._spool / "calls" / re.sub(r"\W", "-", call_id)
                call = ServedCall(app, self._ranks, self._link, message, folder)
                self._calls[call_id] = call
                call.task.add_done_callback(lambda _: self._ended(call_id))
            case protocol.Place(devices=devices):
                if self._ranks is not None:
                    self._ranks.place(devices)
            case protocol.Cancel(call_id=call_id):
                self._link.send(protocol.Cancelling(call_id))
                if (running := self._calls.get(call_id)) is not None:
                    running.cancel()
            case protocol.Fetched(call_id=call_id):
                if (waiting := self._calls.get(call_id)) is not None:
                    waiting.fetched(message)
            case protocol.CallEnded(call_id=call_id):
                if (caller := self._calls.get(call_id)) is not None:
                    caller.child_ended(message)
            case protocol.WarmUp():
                self._begin(self._warm_up())
            case protocol.Vacate(grace_s=grace_s):
                # At once: the next message may be the next place.
                self._begin(self._vacate(None if self._ranks is None else self._ranks.stop(grace_s)))
            case _:
                raise protocol.ProtocolViolationError(f"{type(message).__name__} is not for an app host")

    def _ended(self, call_id: str) -> None:
        task = self._calls.pop(call_id).task
        if task.cancelled():  # before it had begun, so it could not say so itself
            error = JobCancelled("the job was cancelled before the app saw it")
            self._link.send(protocol.Failed(call_id, failures.describe(error)))
        elif (unsaid := task.exception()) is not None:
            log.error("a call could not say how it ended", exc_info=unsaid)
            self._link.send(protocol.Failed(call_id, failures.beyond_words("the call")))

    def _begin(self, tending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(tending)
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)

    async def _vacate(self, leaving: Awaitable[None] | None) -> None:
        if leaving is not None:
            await leaving
        self._link.send(protocol.Vacated())

    async def _warm_up(self) -> None:
        error: dict[str, Any] | None = None
        if self._ranks is not None:
            try:
                await self._ranks.warm_up()
            except Exception as raised:  # noqa: BLE001 - a worker's setup may raise anything; it crosses as values
                error = failures.describe(raised)
        self._link.send(protocol.WarmedUp(error))

    async def _stop(self, app: App, grace_s: float) -> None:
        for call in list(self._calls.values()):
            call.cancel()
        if self._ranks is not None:
            await self._ranks.stop(grace_s)
        try:
            await asyncio.wait_for(app.teardown(), grace_s)
        except Exception:
            log.exception("teardown failed")

    def _tell(self, state: str, pids: list[int]) -> None:
        self._link.send(protocol.Ranks(state, pids))

    def _hear(self, heard: RankLog) -> None:
        for call in self._calls.values():
            if call.uses_ranks:
                call.heard(heard)


def setup_args(app: type[App], environ: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of the worker's ``setup``; a text, a number or None may be set by STOKER_<ALIAS>_<ARGUMENT>."""
    alias = app.name.partition("/")[2]
    args = dict(app.setup_args)
    for name, value in args.items():
        given = environ.get(re.sub(r"\W", "_", f"STOKER_{alias}_{name}").upper())
        if given and (value is None or isinstance(value, str)):
            args[name] = given
        elif given and isinstance(value, int | float) and not isinstance(value, bool):
            args[name] = type(value)(given)
    return args
