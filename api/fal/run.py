"""Runs that are not queued on fal's wire: the caller waits for the job, for its result or for all that it streams.

They are jobs of the best class that the key may ask for. A caller that leaves cancels its job: nobody else knows of it.
A path that ends in ``/stream`` is the endpoint of that name, or the one before it if the app has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from anyio import CancelScope
from fastapi import APIRouter, Body, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api import cancels
from api.connections import BaseUrl, Connections, Here
from api.fal.accept import accept
from api.fal.query_input import QueryInput
from api.fal.queue import answer_of
from api.fal.route import REQUEST_ID, STREAM, AppName, FalRoute, streamed
from api.fal.tokens import Runner
from api.fal.wishes import Wished
from api.following import ended, follow
from api.routes.events import STREAM_HEADERS, EventStream
from api.stream import PING
from api.submission import newest
from api.told import is_last
from stoker import log
from stoker.errors import Conflict, StokerError, Unavailable
from stoker.events import Event
from stoker.keys import Caller

METHODS = ["POST", "PUT", "PATCH", "DELETE"]
"""Their JavaScript client sends whichever it is told to; an endpoint here has none."""

router = APIRouter(prefix="/run", route_class=FalRoute, include_in_schema=False)
logger = log.get(__name__)

Input = Annotated[dict[str, Any] | None, Body()]
T = TypeVar("T")


@router.api_route("/{owner}/{alias}", methods=METHODS)
@router.api_route("/{owner}/{alias}/{path:path}", methods=METHODS)
async def run(
    request: Request,
    app: AppName,
    caller: Runner,
    here: Here,
    base_url: BaseUrl,
    wishes: Wished,
    value: Input = None,
    path: str = "",
) -> Response:
    """Run a job now, and answer with what comes of it."""
    is_stream = path.strip("/").rpartition("/")[2] == STREAM
    if is_stream:
        path = streamed((await newest(here, app)).manifest, path.strip("/"))
    best = caller.best_priority if wishes.priority is None else None
    submitted = await accept(request, here, caller, app, path, value, wishes, base_url, priority=best)
    waiting = Waiting(here, caller, app, submitted.job_id)
    headers = {REQUEST_ID: str(submitted.job_id), **wishes.headers}
    try:
        with here.open_keys.hold(caller) as hold, hold:
            chunks = await _unless_left(request, waiting.opening() if is_stream else waiting.end())
        if is_stream and (chunks or not waiting.has_ended):
            return Streamed(waiting, chunks, base_url, headers)
    except BaseException:
        await waiting.give_up()
        raise
    answer = await answer_of(here, submitted.job_id, caller.tenant_id, base_url)
    answer.headers.update(headers)
    if is_stream and answer.status_code == 200:
        return EventStream(iter([_event(bytes(answer.body))]), headers={**STREAM_HEADERS, **headers})
    return answer


@router.get("/{owner}/{alias}")
@router.get("/{owner}/{alias}/{path:path}")
async def run_by_query(
    request: Request,
    app: AppName,
    caller: Runner,
    here: Here,
    base_url: BaseUrl,
    wishes: Wished,
    value: QueryInput,
    path: str = "",
) -> Response:
    """Run a job whose input is the query."""
    return await run(request, app, caller, here, base_url, wishes, value, path)


class Waiting:
    """One caller that waits for its job."""

    def __init__(self, here: Connections, caller: Caller, app: str, job_id: UUID) -> None:
        self.here, self.caller, self.job_id = here, caller, job_id
        self._app = app
        self._batches = follow(here, job_id, with_progress=True)
        self.has_ended = False

    async def end(self) -> list[bytes]:
        """Wait for the job's end: nothing is streamed."""
        if not await ended(self.here, self.job_id):
            raise Unavailable("the server stops, and has cancelled the request")
        self.has_ended = True
        return []

    async def opening(self) -> list[bytes]:
        """The first that the job streams: nothing if it has been quiet for a while, or has ended."""
        async for batch in self._batches:
            chunks = self._chunks(batch)
            if chunks or not batch or self.has_ended:
                return chunks
        raise Unavailable("the server stops, and has cancelled the request")

    async def rest(self) -> AsyncIterator[bytes]:
        """All that follows the opening, but for the result."""
        if not self.has_ended:
            async for batch in self._batches:
                for chunk in self._chunks(batch):
                    yield chunk
                if not batch:
                    yield PING

    async def give_up(self) -> None:
        """Cancel the job if it has not ended: whatever it is that ends the wait."""
        with CancelScope(shield=True):
            await self._batches.aclose()
            if self.has_ended:
                return
            here = self.here
            try:
                cancelled = await cancels.cancel(
                    here.db, here.bus, here.metrics.counts, self.job_id, self.caller.tenant_id
                )
                here.metrics.counts.ended(self._app, cancelled.state)
            except Conflict:
                return  # it has ended by itself meanwhile
            except StokerError as error:
                logger.warning("run_not_cancelled", job_id=str(self.job_id), reason=str(error)[:200])

    def _chunks(self, batch: list[Event]) -> list[bytes]:
        self.has_ended = bool(batch) and is_last(batch[-1])
        return [_event(orjson.dumps(event.data)) for event in batch if not event.kind.is_row]


class Streamed(EventStream):
    """What a job streams, and its result as the last event. A job that fails then ends it with an ``error`` event."""

    def __init__(self, waiting: Waiting, chunks: list[bytes], base_url: str, headers: dict[str, str]) -> None:
        self._waiting, self._first, self._base_url = waiting, chunks, base_url
        body = waiting.here.open_keys.guard(waiting.caller, self._body())
        super().__init__(body, headers={**STREAM_HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._waiting.give_up()

    async def _body(self) -> AsyncGenerator[bytes, None]:
        for chunk in self._first:
            yield chunk
        async for chunk in self._waiting.rest():
            yield chunk
        if self._waiting.has_ended:
            waited = self._waiting
            answer = await answer_of(waited.here, waited.job_id, waited.caller.tenant_id, self._base_url)
            yield (b"" if answer.status_code == 200 else b"event: error\n") + _event(bytes(answer.body))


async def _unless_left(request: Request, awaited: Coroutine[Any, Any, T]) -> T:
    """What ``awaited`` gives, as long as the caller is there for it.

    Raises:
        ClientDisconnect: it has hung up.
    """
    task, left = asyncio.ensure_future(awaited), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait([task, left], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, left):
            one.cancel()
        await asyncio.wait([task, left])


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # the rest of a body that has been read


def _event(data: bytes) -> bytes:
    return b"data: %s\n\n" % data
