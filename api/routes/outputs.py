"""The stable link of an output, which results and webhooks carry, or of a log. Its token is the right to read it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from api.answers import refused
from api.connections import Here
from stoker import job_logs, job_queries
from stoker.errors import NotFound, OutputsRemoved

LINK_S = 3600
LOCATION = {"Location": {"description": "Of the bytes, for an hour.", "required": True, "schema": {"type": "string"}}}

router = APIRouter(tags=["outputs"])


@router.get(
    "/outputs/{token}/{name}",
    status_code=302,
    response_class=RedirectResponse,
    responses={302: {"headers": LOCATION}, **refused(NotFound, OutputsRemoved)},
)
@router.head("/outputs/{token}/{name}", status_code=302, include_in_schema=False)
async def follow(
    token: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{32,200}$")], name: str, here: Here, request: Request
) -> Response:
    """Lead to a fresh presigned link to the bytes."""
    log_key = await job_logs.key_by_token(here.db, token) if name == job_logs.NAME else None
    if log_key is not None:
        key, content_type = log_key, job_logs.CONTENT_TYPE
    else:
        output = await job_queries.output_by_token(here.db, token)
        if name != output.name:
            raise NotFound("no output has this link")
        key, content_type = output.key, output.content_type
    link = here.storage.presign_get(
        key,
        file_name=name,
        content_type=content_type,
        expires_s=LINK_S,
        method="HEAD" if request.method == "HEAD" else "GET",
    )
    return RedirectResponse(link, 302, {"cache-control": "no-store", "referrer-policy": "no-referrer"})
