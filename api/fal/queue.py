"""The queue of fal's wire: submit, status, a stream of statuses, result, cancel.

A waiting client asks for the status ten times a second, so that is one statement. Failed and cancelled jobs are
COMPLETED with an error; their result answers with the error's own code.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import JSONResponse

from api import cancels
from api.auth import Reader, Submitter
from api.connections import BaseUrl, Connections, Here
from api.fal import errors
from api.fal.accept import IdempotencyKey, MostWaiting, Webhook, accept
from api.fal.query_input import QueryInput
from api.fal.route import REQUEST_ID, AppName, FalRoute, JobId, as_response
from api.fal.statuses import COMPLETED, IN_PROGRESS, IN_QUEUE, WORD, links, status_json
from api.fal.tokens import Follower
from api.fal.wishes import Wished
from api.following import follow
from api.job_json import with_links
from api.routes.events import STREAM_HEADERS, EventStream
from api.stream import PING
from api.told import is_last
from stoker import job_queries, job_status
from stoker.errors import Conflict, NotFound, PayloadRemoved
from stoker.events import Event, EventKind
from stoker.job_status import JobStatus
from stoker.states import JobState

router = APIRouter(prefix="/queue", route_class=FalRoute, include_in_schema=False)

Logs = Annotated[bool, Query()]
Input = Annotated[dict[str, Any] | None, Body()]


@router.post("/{owner}/{alias}")
@router.post("/{owner}/{alias}/{path:path}")
async def submit(
    request: Request,
    app: AppName,
    caller: Submitter,
    here: Here,
    base_url: BaseUrl,
    wishes: Wished,
    value: Input = None,
    path: str = "",
    fal_webhook: Webhook = None,
    fal_max_queue_length: MostWaiting = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a request."""
    submitted = await accept(
        request,
        here,
        caller,
        app,
        path,
        value,
        wishes,
        base_url,
        webhook=fal_webhook,
        most_waiting=fal_max_queue_length,
        idempotency_key=idempotency_key,
    )
    position = submitted.fresh.queue_position if submitted.fresh else None
    answer = {
        "status": IN_QUEUE,
        **links(app, submitted.job_id, base_url),
        "queue_position": position or 0,
        "gateway_request_id": str(submitted.job_id),
    }
    return JSONResponse(answer, headers={REQUEST_ID: str(submitted.job_id), **wishes.headers})


@router.get("/{owner}/{alias}/requests/{request_id}/status")
async def status(
    app: AppName, job_id: JobId, caller: Reader, here: Here, base_url: BaseUrl, logs: Logs = False
) -> Response:
    """Where a request is: 202 until it is completed."""
    found = await _find(here, app, job_id, caller.tenant_id)
    lines = await job_status.log_lines(here.db, job_id) if logs and WORD[found.state] != IN_QUEUE else []
    answer = status_json(job_id, found, base_url, lines)
    code = 200 if answer["status"] == COMPLETED else 202
    return JSONResponse(answer, code, {REQUEST_ID: str(job_id)})


@router.get("/{owner}/{alias}/requests/{request_id}/status/stream")
async def stream_status(
    app: AppName, job_id: JobId, caller: Follower, here: Here, base_url: BaseUrl, logs: Logs = False
) -> Response:
    """The status each time that it changes, with the new lines of the log, until the request is completed."""
    await _find(here, app, job_id, caller.tenant_id)
    body = _statuses(here, job_id, caller.tenant_id, base_url, with_logs=logs)
    return EventStream(here.open_keys.guard(caller, body), headers={REQUEST_ID: str(job_id), **STREAM_HEADERS})


@router.get("/{owner}/{alias}/requests/{request_id}")
async def result(app: AppName, job_id: JobId, caller: Reader, here: Here, base_url: BaseUrl) -> Response:
    """What the app has returned, as it is."""
    await _find(here, app, job_id, caller.tenant_id)
    return await answer_of(here, job_id, caller.tenant_id, base_url)


@router.put("/{owner}/{alias}/requests/{request_id}/cancel")
async def cancel(app: AppName, job_id: JobId, caller: Submitter, here: Here) -> Response:
    """Cancel a waiting request at once; ask a running one to stop."""
    headers = {REQUEST_ID: str(job_id)}
    try:
        await _find(here, app, job_id, caller.tenant_id)
        cancelled = await cancels.cancel(here.db, here.bus, here.metrics.counts, job_id, caller.tenant_id)
    except NotFound:
        return JSONResponse({"status": "NOT_FOUND"}, 404)
    except Conflict:
        return JSONResponse({"status": "ALREADY_COMPLETED"}, 400, headers)
    here.metrics.counts.ended(app, cancelled.state)
    return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202, headers)


# After the routes of requests: a path that is none of theirs is an endpoint.
@router.get("/{owner}/{alias}")
@router.get("/{owner}/{alias}/{path:path}")
async def submit_by_query(
    request: Request,
    app: AppName,
    caller: Submitter,
    here: Here,
    base_url: BaseUrl,
    wishes: Wished,
    value: QueryInput,
    path: str = "",
    fal_webhook: Webhook = None,
    fal_max_queue_length: MostWaiting = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a request whose input is its query."""
    return await submit(
        request,
        app,
        caller,
        here,
        base_url,
        wishes,
        value,
        path,
        fal_webhook,
        fal_max_queue_length,
        idempotency_key,
    )


async def answer_of(here: Connections, job_id: UUID, tenant_id: UUID, base_url: str) -> Response:
    """The result of a job, or what stands in its place."""
    job = await job_queries.get(here.db, job_id, tenant_id)
    headers = {REQUEST_ID: str(job_id)}
    if not job.state.is_final:
        # Their clients take any 2xx for a result.
        return JSONResponse({"detail": "Request is still in progress"}, 400, headers)
    if job.state is not JobState.SUCCEEDED:
        answer = as_response(errors.of_job(job.error if job.state is JobState.FAILED else None))
    elif job.payload_removed_at is not None:
        answer = as_response(errors.of_request(PayloadRemoved(f"the result of request {job_id} was removed")))
    else:
        return Response(orjson.dumps(with_links(job.result, job.outputs, base_url)), 200, headers, "application/json")
    answer.headers.update(headers)
    return answer


async def _find(here: Connections, app: str, job_id: UUID, tenant_id: UUID) -> JobStatus:
    found = await job_status.find(here.db, job_id, tenant_id)
    if found.app != app:
        raise NotFound(f"there is no request {job_id} of {app}")
    return found


async def _statuses(
    here: Connections, job_id: UUID, tenant_id: UUID, base_url: str, *, with_logs: bool
) -> AsyncGenerator[bytes, None]:
    said: dict[str, Any] = {}
    unsaid: list[Event] = []
    async with aclosing(follow(here, job_id)) as batches:
        async for batch in batches:
            unsaid += [event for event in batch if with_logs and event.kind is EventKind.LOG]
            found = await job_status.find(here.db, job_id, tenant_id)
            if found.state.is_final and not (batch and is_last(batch[-1])):
                continue  # its last lines are still to come
            answer = status_json(job_id, found, base_url, unsaid)
            if answer == said and not unsaid:
                yield PING
                continue
            said = {**answer, "logs": []} if "logs" in answer else answer
            unsaid = [] if answer["status"] in (IN_PROGRESS, COMPLETED) else unsaid
            yield b"data: %s\n\n" % orjson.dumps(answer)
            if answer["status"] == COMPLETED:
                return
