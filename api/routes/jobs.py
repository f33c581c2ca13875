"""Jobs: submit, read, list, cancel, retry."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from api import cancels, submission
from api.answers import Job, Jobs, answers
from api.auth import Reader, Submitter
from api.bodies import THREAD_BYTES, JsonRoute, NewJobBody, Written
from api.connections import BaseUrl, Connections, Here
from api.job_json import job_json, summary_json
from stoker import job_queries, jobs, log
from stoker.errors import (
    Conflict,
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    InvalidRequest,
    NotFound,
    PayloadRemoved,
    QueueFull,
    RateLimited,
    UnknownApp,
)
from stoker.job_queries import JobFilters
from stoker.jobs import NewJob, Submitted
from stoker.keys import Caller
from stoker.states import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255, description="The same key makes one job.")]
Place = Annotated[str | None, Query(max_length=200, json_schema_extra={"pattern": job_queries.CURSOR.pattern})]
ACCEPTED = {
    "Location": {"description": "The job.", "required": True, "schema": {"type": "string"}},
    "Idempotency-Replayed": {"description": "It had been accepted before.", "schema": {"const": "true"}},
}
NoNul = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")]


@router.post(
    "",
    status_code=202,
    responses=answers(
        202, Job, Forbidden, UnknownApp, InvalidInput, IdempotencyConflict, RateLimited, QueueFull, headers=ACCEPTED
    ),
)
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
    submitted, new = await submission.submit(
        here,
        caller,
        body,
        is_large=len(await request.body()) > THREAD_BYTES,
        idempotency_key=idempotency_key,
        sent_hash=sent_hash,
    )
    return await _accepted(submitted, here, caller, base_url, response, new)


@router.get("/{job_id}", responses=answers(200, Job, NotFound))
async def get(job_id: UUID, caller: Reader, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """One job, with its attempts, progress, outputs and timings."""
    return job_json(await job_queries.get(here.db, job_id, caller.tenant_id), base_url)


@router.get("", responses=answers(200, Jobs, InvalidRequest))
async def list_jobs(
    caller: Reader,
    here: Here,
    base_url: BaseUrl,
    app: NoNul = None,
    state: JobState | None = None,
    tag: NoNul = None,
    since: Written | None = None,
    parent: UUID | None = None,
    cursor: Place = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """The tenant's jobs, newest first, in pages: without input, result and outputs, which may be large."""
    filters = JobFilters(app=app, state=state, tag=tag, since=since, parent=parent)
    page = await job_queries.list_jobs(here.db, caller.tenant_id, filters, cursor, limit)
    return {"jobs": [summary_json(job, base_url) for job in page.jobs], "next_cursor": page.next_cursor}


@router.post("/{job_id}/cancel", status_code=202, responses=answers(202, Job, Forbidden, NotFound, Conflict))
async def cancel(job_id: UUID, caller: Submitter, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """Cancel a waiting job at once; ask the node of a running one to stop it."""
    cancelled = await cancels.cancel(here.db, here.bus, here.metrics.counts, job_id, caller.tenant_id)
    job = await job_queries.get(here.db, job_id, caller.tenant_id)
    here.metrics.counts.ended(job.app, cancelled.state)
    return job_json(job, base_url)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    responses=answers(
        202, Job, Forbidden, NotFound, Conflict, PayloadRemoved, RateLimited, QueueFull, headers=ACCEPTED
    ),
)
async def retry(job_id: UUID, caller: Submitter, here: Here, base_url: BaseUrl, response: Response) -> dict[str, Any]:
    """Submit a final job again, as a new one whose ``retried_from`` names it."""
    submitted = await jobs.retry(
        here.db,
        job_id,
        caller.tenant_id,
        key_id=caller.key_id,
        best_priority=caller.best_priority,
        tenant_most_waiting=caller.max_waiting,
    )
    submission.announce(here, caller, submitted)
    return await _accepted(submitted, here, caller, base_url, response)


async def _accepted(
    submitted: Submitted,
    here: Connections,
    caller: Caller,
    base_url: str,
    response: Response,
    new: NewJob | None = None,
) -> dict[str, Any]:
    if not submitted.created:
        response.headers["idempotency-replayed"] = "true"
    log.note(job_id=str(submitted.job_id))
    view = None if new is None else job_queries.just_submitted(new, submitted)
    job = job_json(view or await job_queries.get(here.db, submitted.job_id, caller.tenant_id), base_url)
    response.headers["location"] = job["links"]["self"]
    return job
