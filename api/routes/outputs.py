"""The stable link of an output, which results and webhooks carry. Its token is the right to read it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from api.connections import Here
from stoker import job_queries
from stoker.errors import NotFound

LINK_S = 3600

router = APIRouter(tags=["outputs"])


@router.get("/outputs/{token}/{name}", status_code=302, response_class=RedirectResponse)
@router.head("/outputs/{token}/{name}", status_code=302, include_in_schema=False)
async def follow(
    token: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{32,200}$")], name: str, here: Here, request: Request
) -> Response:
    """Lead to a fresh presigned link to the bytes."""
    output = await job_queries.output_by_token(here.db, token)
    if name != output.name:
        raise NotFound("no output has this link")
    link = here.storage.presign_get(
        output.key,
        file_name=output.name,
        content_type=output.content_type,
        expires_s=LINK_S,
        method="HEAD" if request.method == "HEAD" else "GET",
    )
    return RedirectResponse(link, 302, {"cache-control": "no-store", "referrer-policy": "no-referrer"})
