"""Events of a job, as Server-Sent Events. The stream itself is ``api.stream``."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from api.answers import refused
from api.auth import Reader
from api.connections import BaseUrl, Here
from api.stream import JobStream
from stoker import job_queries
from stoker.errors import InvalidRequest, NotFound
from stoker.events import WRITTEN, EventId, EventKind

router = APIRouter(prefix="/v1/jobs", tags=["events"])

STREAM_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
"""Proxies keep nothing back, and compress nothing: to do that they would have to wait for more."""
AFTER = "The id of the last event that was seen; what came later is sent."
SEEN = {"pattern": f"^({WRITTEN.pattern})?$"}


def sse(*names: str) -> dict[str, Any]:
    """The content of a stream of events that have these names, as the document shows it."""
    event = {
        "type": "object",
        "properties": {
            "event": {"enum": list(names)},
            "id": {"type": "string"},
            "data": {"type": "string", "contentMediaType": "application/json"},
            "retry": {"type": "integer"},
        },
    }
    return {"text/event-stream": {"itemSchema": event}}


class EventStream(StreamingResponse):
    media_type = "text/event-stream"


@router.get(
    "/{job_id}/events",
    response_class=EventStream,
    responses={
        200: {"content": sse(*EventKind)},
        204: {"description": "The final event was seen."},
        **refused(InvalidRequest, NotFound),
    },
)
async def events(
    job_id: UUID,
    caller: Reader,
    here: Here,
    base_url: BaseUrl,
    last_event_id: Annotated[str, Header(max_length=60, description=AFTER, json_schema_extra=SEEN)] = "",
    after: Annotated[str, Query(max_length=60, description=AFTER, json_schema_extra=SEEN)] = "",
) -> Response:
    """Replay the job's events, then follow it until its final event."""
    job = await job_queries.get(here.db, job_id, caller.tenant_id)
    # A browser that reconnects keeps ?after= of its first request: its header is the newer word.
    seen = EventId.parse(last_event_id or after or "0")
    if seen.seq > job.last_seq:
        raise InvalidRequest(
            f"event {seen} of job {job_id} does not exist yet: its last one is {job.last_seq}",
            hint="Send back the id of an event of this job as it came.",
        )
    if job.state.is_final and seen.seq == job.last_seq:
        return Response(status_code=204)
    stream = JobStream(here, job, seen, base_url)
    return EventStream(here.open_keys.guard(caller, stream.body()), headers=STREAM_HEADERS)
