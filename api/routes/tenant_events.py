"""Events of many jobs: as Server-Sent Events, or in pages. The stream itself is ``api.tenant_stream``."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from api.answers import refused
from api.auth import Reader
from api.connections import BaseUrl, Here
from api.routes.events import STREAM_HEADERS, EventStream, sse
from api.tenant_stream import TenantStream, event_json
from stoker import tenant_events
from stoker.errors import InvalidRequest
from stoker.events import EventKind
from stoker.states import JobState
from stoker.tenant_events import MAX_JOBS, SCAN, START, WRITTEN, Cursor, EventFilters

router = APIRouter(prefix="/v1/events", tags=["events"])

AFTER = (
    "The id of the last event that was seen; 0 is all that is kept. Without it: from now on, or all of the given jobs."
)
SEEN = {"pattern": f"^(0|{WRITTEN.pattern})?$"}
ROWS = [kind for kind in EventKind if kind.is_row]
OF_ROWS: dict[str, Any] = {"items": {"enum": ROWS}}
PAGE: dict[str, Any] = {"application/json": {"schema": {"$ref": "#/components/schemas/Events"}}}
"""What is answered to who asks for JSON."""
NoNul = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")]


@router.get(
    "",
    response_class=EventStream,
    responses={200: {"content": PAGE | sse(*ROWS, "place", "gap")}, **refused(InvalidRequest)},
)
async def events(
    caller: Reader,
    here: Here,
    base_url: BaseUrl,
    accept: Annotated[str, Header(max_length=500, include_in_schema=False)] = "",
    last_event_id: Annotated[str, Header(max_length=100, description=AFTER, json_schema_extra=SEEN)] = "",
    after: Annotated[str, Query(max_length=100, description=AFTER, json_schema_extra=SEEN)] = "",
    app: NoNul = None,
    kind: Annotated[list[EventKind] | None, Query(description="Repeatable.", json_schema_extra=OF_ROWS)] = None,
    state: Annotated[list[JobState] | None, Query(description="Only changes to these states; repeatable.")] = None,
    job_id: Annotated[list[UUID] | None, Query(max_length=MAX_JOBS, description="Repeatable.")] = None,
    parent_id: Annotated[UUID | None, Query(description="Only of the jobs that this one has started.")] = None,
    root_id: Annotated[UUID | None, Query(description="Only of this job and all that came of it.")] = None,
    limit: Annotated[int, Query(ge=1, le=SCAN, description="Of a page: how many rows are looked at.")] = SCAN,
) -> Response:
    """Follow the tenant's jobs from the last event that was seen. ``Accept: application/json`` asks for one page."""
    if kind and not all(each.is_row for each in kind):
        raise InvalidRequest("progress and previews are not among the events of many jobs", hint="Follow the job.")
    filters = EventFilters(app, tuple(kind or ()), tuple(state or ()), parent_id, root_id, tuple(job_id or ()))
    given = last_event_id or after or None
    seen = None if given is None else START if given == "0" else Cursor.parse(given)
    if "application/json" not in accept:
        stream = TenantStream(here, caller.tenant_id, seen, filters, base_url)
        return EventStream(here.open_keys.guard(caller, stream.body()), headers=STREAM_HEADERS)
    if seen is None:
        seen = START if filters.job_ids else await tenant_events.here(here.db, caller.tenant_id)
    page = await tenant_events.read(here.db, caller.tenant_id, seen, filters, scan=limit)
    answer: dict[str, Any] = {
        "events": [
            {"id": str(event.cursor), "kind": event.kind.value, **event_json(event, base_url)} for event in page.events
        ],
        "next": str(page.cursor),
        "has_more": page.has_more,
        "gap": page.has_gap,
    }
    return JSONResponse(answer)
