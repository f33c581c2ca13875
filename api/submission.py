"""Submission: a request becomes an accepted job. What both faces of the API do; neither answers a caller here.

The input is checked before anything is stored, the doorbell rings after the commit.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from anyio import to_thread

from api.bodies import NewJobBody
from api.connections import Connections
from stoker import apps
from stoker.apps import AppVersion
from stoker.crash_points import Point, reach
from stoker.errors import Forbidden, InvalidFile, InvalidInput
from stoker.fetch import check_link
from stoker.jobs import NewJob, Submitted
from stoker.keys import Caller
from stoker.states import JobState
from stoker.validation import validate

DEFAULT_PRIORITY = 5


async def submit(
    here: Connections,
    caller: Caller,
    body: NewJobBody,
    *,
    is_large: bool = False,
    idempotency_key: str | None = None,
    sent_hash: bytes | None = None,
    most_waiting: int | None = None,
) -> tuple[Submitted, NewJob]:
    """Check the request and store its job. ``is_large``: the input is checked in a thread, others would wait for it.

    Raises:
        UnknownApp, InvalidInput, Forbidden, QueueFull, IdempotencyConflict
    """
    version = await newest(here, body.app)
    endpoint = version.endpoint(body.endpoint)
    if body.webhook_url is not None:
        _check_webhook(body.webhook_url, here.settings.webhook_allowed_hosts)
    if is_large:
        await to_thread.run_sync(_check_input, endpoint.input_schema, body.input)
    else:
        _check_input(endpoint.input_schema, body.input)
    new = replace(
        _new_job(body, caller, version),
        idempotency_key=idempotency_key,
        sent_hash=sent_hash,
        most_waiting=most_waiting,
    )
    submitted = await here.submits.submit(new)
    announce(here, caller, submitted)
    await asyncio.sleep(0)  # the bell is on its way before the answer is made
    return submitted, new


async def newest(here: Connections, app: str) -> AppVersion:
    """The version that new jobs of the app get.

    Raises:
        UnknownApp: nobody has published it.
    """
    return await here.versions.get(app, lambda: apps.newest(here.db, app))


def announce(here: Connections, caller: Caller, submitted: Submitted) -> None:
    """Tell who follows the tenant's jobs, and ring for a node."""
    if submitted.created:
        here.bus.tell(submitted.job_id, 1, caller.tenant_id)
    if submitted.created and submitted.state is JobState.QUEUED:
        reach(Point.API_SUBMITTED)
        here.doorbell.ring(submitted.queue)
        reach(Point.API_RUNG)


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
        store_io=body.store_io,
        keep_outputs_s=body.keep_outputs,
        no_retry=body.no_retry,
        tenant_most_waiting=caller.max_waiting,
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
