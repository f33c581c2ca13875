"""ServedCall: one call of an endpoint, from its input as JSON to its result or error.

Validates again with the request model, brings the Files, calls the method and renders what it returns. It is what
``App.run``, ``fetch``, ``progress`` and ``log`` reach (``stoker.app.Call``). ``service`` makes one for each call.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stoker.app import App, current_call
from stoker.errors import AppError, InvalidFile, JobCancelled
from stoker.events import EventKind
from worker_node.apphost import failures, pictures, protocol
from worker_node.apphost.calls import Children, files_of
from worker_node.apphost.link import Link
from worker_node.apphost.own_ranks import OwnRanks
from worker_node.apphost.ranks import AppRanks
from worker_node.apphost.results import Rendered, event_json, is_light, render
from worker_node.distributed import RankEvent, RankLog, RunnerError

MAX_HEARD = 2_000_000
"""Of what ranks log in one call, in characters. More than a job's log takes, which says where it was cut."""


class ServedCall:
    """A call while it is served. ``folder`` is its own part of the spool, emptied of what it made before."""

    def __init__(
        self, app: App, ranks: AppRanks | OwnRanks | None, link: Link, start: protocol.Start, folder: Path
    ) -> None:
        self._app, self._ranks, self._link, self._start, self._folder = app, ranks, link, start, folder
        self._fetches: dict[int, asyncio.Future[Path]] = {}
        self._children = Children(link, start.call_id, folder)
        self._is_cancelled = False
        self.uses_ranks = False
        self._cold_start_s = 0.0
        self._heard_signs = 0
        self._was_warm = True
        self.task = asyncio.create_task(self._serve())

    def cancel(self) -> None:
        """Ask the endpoint to stop, wherever it waits; ranks that work for it are told by their runner."""
        self._is_cancelled = True
        self.task.cancel()

    def fetched(self, answer: protocol.Fetched) -> None:
        """Take in where a file lies, or why it does not."""
        waiting = self._fetches.pop(answer.number, None)
        if waiting is None or waiting.done():
            return
        if answer.path:
            waiting.set_result(Path(answer.path))
        else:
            waiting.set_exception(InvalidFile(answer.problem, hint=answer.hint or None))

    def child_ended(self, answer: protocol.CallEnded) -> None:
        """Take in what came of a call of another app."""
        self._children.ended(answer)

    def heard(self, log: RankLog) -> None:
        """Add a line of a rank to the job's log, which has an end: beyond it the node would throw the lines away."""
        self._heard_signs += len(log.message)
        if self._heard_signs > MAX_HEARD:
            return
        self._happened(EventKind.LOG, log.rank, {"message": log.message, "level": log.level})

    async def run(self, payload: Mapping[str, Any]) -> Any:
        """Call the ranks; pictures, arrays and paths in the result come back as Files."""
        self._raise_if_cancelled()
        if self._ranks is None:
            hint = "Give the app a worker and num_gpus, or do the work in the endpoint itself."
            raise AppError("run was called, but this app has no ranks", hint=hint)
        if not self._app.endpoints[self._start.endpoint].uses_gpus:
            hint = "It was declared with num_gpus=0, so no GPU was set aside for its jobs. Leave num_gpus out."
            raise AppError(f"endpoint {self._start.endpoint} may not call run", hint=hint)
        self.uses_ranks = True
        try:
            ran = await self._ranks.run(payload, self._streamed)
        except RunnerError as error:
            raise failures.from_runner(error) from error
        finally:
            self.uses_ranks = False
        self._cold_start_s += ran.cold_start_s
        self._was_warm = self._was_warm and ran.was_warm
        return pictures.with_files(ran.value)

    async def fetch(self, url: str) -> Path:
        """Have the supervisor bring a file into the spool."""
        number = len(self._fetches)
        while number in self._fetches:
            number += 1
        waiting: asyncio.Future[Path] = asyncio.get_running_loop().create_future()
        self._fetches[number] = waiting
        self._link.send(protocol.Fetch(self._start.call_id, number, url))
        return await waiting

    async def call(
        self, app: str, request: BaseModel | Mapping[str, Any], endpoint: str, key: str | None
    ) -> dict[str, Any]:
        """Have another app's job done; its result with Files as Files."""
        self._raise_if_cancelled()
        return await self._children.call(app, request, endpoint, key)

    def emit(self, kind: EventKind, data: Mapping[str, Any]) -> None:
        """Add an event of the endpoint's own."""
        self._raise_if_cancelled()
        self._happened(kind, None, data)

    async def _serve(self) -> None:
        began = time.monotonic()
        try:
            returned, response = await self._call_endpoint()
            folder = self._folder / "outputs"
            if is_light(returned):
                rendered = render(returned, response, folder)
            else:
                rendered = await asyncio.to_thread(render, returned, response, folder)
            self._link.send(self._done(rendered, time.monotonic() - began))
        # Whatever user code raises ends its own call and no other; sys.exit() in an endpoint is one such thing.
        except BaseException as error:  # noqa: BLE001
            if self._is_cancelled and isinstance(error, asyncio.CancelledError | JobCancelled):
                error = JobCancelled("the job was cancelled while it ran")
            if self._ranks is not None:
                self._ranks.call_failed(error)
            # Nobody will ask for what it had made; the spool would keep it for ever.
            shutil.rmtree(self._folder, ignore_errors=True)
            self._link.send(protocol.Failed(self._start.call_id, failures.describe(error)))
        finally:
            self._children.leave()

    def _done(self, rendered: Rendered, took_s: float) -> protocol.Done:
        return protocol.Done(
            call_id=self._start.call_id,
            result_json=rendered.result_json,
            cold_start_s=self._cold_start_s,
            run_s=max(0.0, took_s - self._cold_start_s),
            warm=self._was_warm,
            peak_memory_bytes=self._ranks.peak_memory_bytes() if self._ranks is not None else None,
            files=rendered.files,
        )

    async def _call_endpoint(self) -> tuple[Any, type[BaseModel] | None]:
        endpoint = self._app.endpoints[self._start.endpoint]
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            request = endpoint.request.model_validate(json.loads(self._start.input_json))
        except ValidationError as error:
            raise failures.from_validation(error) from None
        current_call.set(self)
        for file in files_of(request):
            if not file.url:
                raise InvalidFile("a file of the input has no url")
            file.at(await self.fetch(file.url))
        if endpoint.uses_gpus and self._ranks is not None:
            # An endpoint that calls a runner of its own does so unseen: whatever the ranks say until its end is of it.
            self.uses_ranks = isinstance(self._ranks, OwnRanks)
            ready = await self._ranks.ready_for_call()
            self._cold_start_s, self._was_warm = ready.cold_start_s, ready.was_warm
        return await getattr(self._app, endpoint.method)(request), endpoint.response

    async def _streamed(self, event: RankEvent) -> None:
        rest, found = pictures.take_pictures(event.data)
        data = dict(rest) if isinstance(rest, Mapping) else {} if rest is None else {"data": rest}
        if data:
            self._happened(EventKind.PROGRESS, event.rank, data)
        for picture in found:
            image = await asyncio.to_thread(pictures.preview, picture)
            step = {"step": data["step"]} if "step" in data else {}
            self._happened(EventKind.PREVIEW, event.rank, {**step, "image": image})

    def _happened(self, kind: EventKind, rank: int | None, data: Mapping[str, Any]) -> None:
        named = dict(data) if rank is None else {**data, "rank": rank}
        self._link.send(protocol.Happened(self._start.call_id, kind.value, rank, event_json(named)))

    def _raise_if_cancelled(self) -> None:
        if self._is_cancelled:
            raise JobCancelled("the job was cancelled while it ran")
