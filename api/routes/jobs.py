"""Jobs: submit, read, list, cancel, retry."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime

from api import cancels
from api.auth import Reader, Submitter
from api.bodies import THREAD_BYTES, JsonRoute, NewJobBody
from api.connections import BaseUrl, Connections, Here
from api.job_json import job_json, summary_json
from stoker import apps, children, job_queries, jobs, log
from stoker.apps import AppVersion
from stoker.crash_points import Point, reach
from stoker.errors import Forbidden, InvalidFile, InvalidInput
from stoker.fetch import check_link
from stoker.job_queries import JobFilters
from stoker.jobs import NewJob, Submitted
from stoker.keys import Caller
from stoker.states import JobState
from stoker.validation import validate

DEFAULT_PRIORITY = 5

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255, description="The same key makes one job.")]
NoNul = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")]


@router.post("", status_code=202)
async def submit(
    request: Request,
    body: NewJobBody,
    caller: Submitter,
    here: Here,
    base_url: BaseUrl,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Accept a job. It is stored when this answers; it runs when a node takes it."""
    sent_hash = None
    if idempotency_key is not None:
        sent_hash = hashlib.sha256(json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()).digest()
        # First: what was good once is answered as it was, whatever the app or the key has become since.
        replay = await job_queries.find_replay(here.db, caller.tenant_id, idempotency_key, sent_hash)
        if replay is not None:
            return await _accepted(replay, here, caller, base_url, response)
    version = await here.versions.get(body.app, lambda: apps.newest(here.db, body.app))
    endpoint = version.endpoint(body.endpoint)
    if body.webhook_url is not None:
        _check_webhook(body.webhook_url, here.settings.webhook_allowed_hosts)
    if len(await request.body()) > THREAD_BYTES:
        await to_thread.run_sync(_check_input, endpoint.input_schema, body.input)
    else:
        _check_input(endpoint.input_schema, body.input)
    new = replace(_new_job(body, caller, version), idempotency_key=idempotency_key, sent_hash=sent_hash)
    return await _accepted(await here.submits.submit(new), here, caller, base_url, response, new)


@router.get("/{job_id}")
async def get(job_id: UUID, caller: Reader, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """One job, with its attempts, progress, outputs and timings."""
    return job_json(await job_queries.get(here.db, job_id, caller.tenant_id), base_url)


@router.get("")
async def list_jobs(
    caller: Reader,
    here: Here,
    base_url: BaseUrl,
    app: NoNul = None,
    state: JobState | None = None,
    tag: NoNul = None,
    since: AwareDatetime | None = None,
    parent: UUID | None = None,
    cursor: NoNul = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """The tenant's jobs, newest first, in pages: without input, result and outputs, which may be large."""
    filters = JobFilters(app=app, state=state, tag=tag, since=since, parent=parent)
    page = await job_queries.list_jobs(here.db, caller.tenant_id, filters, cursor, limit)
    return {"jobs": [summary_json(job, base_url) for job in page.jobs], "next_cursor": page.next_cursor}


@router.post("/{job_id}/cancel", status_code=202)
async def cancel(job_id: UUID, caller: Submitter, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """Cancel a waiting job at once; ask the node of a running one to stop it."""
    cancelled = await jobs.request_cancel(here.db, job_id, caller.tenant_id)
    reach(Point.API_CANCELLED)
    await cancels.tell(here.bus, job_id, caller.tenant_id, cancelled)
    for child in await children.cancel_below(here.db, job_id):
        await cancels.tell_of_child(here.bus, child)
        here.metrics.counts.ended(child.queue, child.state)
    job = await job_queries.get(here.db, job_id, caller.tenant_id)
    here.metrics.counts.ended(job.app, cancelled.state)
    return job_json(job, base_url)


@router.post("/{job_id}/retry", status_code=202)
async def retry(job_id: UUID, caller: Submitter, here: Here, base_url: BaseUrl, response: Response) -> dict[str, Any]:
    """Submit a final job again, as a new one whose ``retried_from`` names it."""
    submitted = await jobs.retry(
        here.db, job_id, caller.tenant_id, key_id=caller.key_id, best_priority=caller.best_priority
    )
    return await _accepted(submitted, here, caller, base_url, response)


async def _accepted(
    submitted: Submitted,
    here: Connections,
    caller: Caller,
    base_url: str,
    response: Response,
    new: NewJob | None = None,
) -> dict[str, Any]:
    if submitted.created:
        here.bus.tell(submitted.job_id, 1, caller.tenant_id)
    if submitted.created and submitted.state is JobState.QUEUED:
        reach(Point.API_SUBMITTED)
        here.doorbell.ring(submitted.queue)
        reach(Point.API_RUNG)
    if not submitted.created:
        response.headers["idempotency-replayed"] = "true"
    log.note(job_id=str(submitted.job_id))
    view = None if new is None else job_queries.just_submitted(new, submitted)
    job = job_json(view or await job_queries.get(here.db, submitted.job_id, caller.tenant_id), base_url)
    response.headers["location"] = job["links"]["self"]
    return job


def _new_job(body: NewJobBody, caller: Caller, version: AppVersion) -> NewJob:
    priority = max(DEFAULT_PRIORITY, caller.best_priority) if body.priority is None else body.priority
    if priority < caller.best_priority:
        raise Forbidden(
            f"this key may not ask for priority {priority}",
            hint=f"Its best priority is {caller.best_priority}; 0 is first, 9 last.",
        )
    return NewJob(
        tenant_id=caller.tenant_id,
        version=version,
        endpoint=body.endpoint,
        input=body.input,
        priority=priority,
        webhook_url=body.webhook_url,
        run_at=body.run_at,
        start_timeout_s=body.start_timeout,
        run_timeout_s=body.run_timeout,
        max_attempts=body.max_attempts,
        tags=tuple(body.tags),
        key_id=caller.key_id,
    )


def _check_webhook(url: str, allowed: frozenset[str]) -> None:
    try:
        check_link(url, allowed)
    except InvalidFile as error:
        entry = {"loc": ["body", "webhook_url"], "msg": str(error), "type": "url_not_usable"}
        raise InvalidInput(
            f"the webhook_url would never be called: {error}",
            errors=[entry],
            hint="Name an https address; STOKER_WEBHOOK_ALLOWED_HOSTS has the exceptions.",
        ) from error


def _check_input(schema: dict[str, Any], value: dict[str, Any]) -> None:
    try:
        validate(schema, value)
    except InvalidInput as error:
        # Places are named from the root of the body, as those of every other field are.
        error.errors = [{**entry, "loc": ["body", "input", *entry["loc"]]} for entry in error.errors]
        raise
