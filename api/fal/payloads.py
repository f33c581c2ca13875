"""What fal's platform has for taking a request's payload away: the call of today and the one before it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.auth import Submitter
from api.connections import BaseUrl, Here
from api.fal.route import FalRoute, JobId
from stoker import deletions, log

router = APIRouter(prefix="/rest", route_class=FalRoute, include_in_schema=False)


@router.delete("/v1/models/requests/{request_id}/payloads")
async def delete_payloads(job_id: JobId, caller: Submitter, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """Take away a request's input, result and files."""
    log.note(job_id=str(job_id))
    links = await deletions.delete_payload(here.db, job_id, caller)
    return {"cdn_delete_results": [{"link": f"{base_url}{link}", "exception": None} for link in links]}


@router.put("/requests/delete_io/{request_id}")
async def delete_io(job_id: JobId, caller: Submitter, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """The same, as it was called before."""
    done = await delete_payloads(job_id, caller, here, base_url)
    return {"CDN_DELETE_RESULTS": done["cdn_delete_results"]}
