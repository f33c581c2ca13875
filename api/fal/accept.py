"""Accept: a request of fal's form, whether it waits in the queue or its caller for it, becomes a job.

``/{path}`` is the endpoint, the body the bare input, headers are wishes. Everything else is ``api.submission``'s.
"""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import Header, Query, Request

from api.bodies import THREAD_BYTES, NewJobBody
from api.connections import Connections
from api.fal import own_links
from api.fal.wishes import Wishes
from api.submission import newest, submit
from stoker.jobs import Submitted
from stoker.keys import Caller

Webhook = Annotated[str | None, Query(max_length=2000, pattern=r"^https?://")]
MostWaiting = Annotated[int | None, Query(ge=1, lt=2**31)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


async def accept(
    request: Request,
    here: Connections,
    caller: Caller,
    app: str,
    path: str,
    value: dict[str, Any] | None,
    wishes: Wishes,
    base_url: str,
    *,
    priority: int | None = None,
    webhook: str | None = None,
    most_waiting: int | None = None,
    idempotency_key: str | None = None,
) -> Submitted:
    """Store the job that the request asks for.

    Raises:
        UnknownApp, InvalidInput, Forbidden, QueueFull, IdempotencyConflict
    """
    endpoint = f"/{path.strip('/')}"
    schema = (await newest(here, app)).endpoint(endpoint).input_schema
    is_large = len(await request.body()) > THREAD_BYTES
    if is_large:
        given = await to_thread.run_sync(own_links.resolved, schema, value or {}, base_url)
    else:
        given = own_links.resolved(schema, value or {}, base_url)
    # The parts are checked where they are read; what an endpoint takes is checked against its schema.
    body = NewJobBody.model_construct(
        app=app,
        endpoint=endpoint,
        input=given,
        priority=wishes.priority if priority is None else priority,
        webhook_url=webhook,
        start_timeout=wishes.start_timeout_s,
        max_attempts=wishes.max_attempts,
        tags=[],
        store_io=wishes.store_io,
        keep_outputs=wishes.keep_outputs_s,
        no_retry=wishes.no_retry,
    )
    submitted, _ = await submit(
        here,
        caller,
        body,
        is_large=is_large,
        idempotency_key=idempotency_key,
        most_waiting=most_waiting,
    )
    return submitted
