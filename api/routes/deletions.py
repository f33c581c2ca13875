"""Deletion: a caller has its own final jobs, their payloads and its files taken away before their time."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from api.answers import refused
from api.auth import Submitter
from api.bodies import JsonRoute
from api.connections import Here
from api.routes.files import FileId
from stoker import deletions, log
from stoker.errors import Conflict, Forbidden, NotFound

REFUSES = (Forbidden, NotFound, Conflict)

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.delete("/jobs/{job_id}", status_code=204, tags=["jobs"], responses=refused(*REFUSES))
async def delete_job(job_id: UUID, caller: Submitter, here: Here) -> None:
    """Delete a final job and all that it has started, with input, result, outputs, events and deliveries."""
    log.note(job_id=str(job_id))
    await deletions.delete_job(here.db, job_id, caller)


@router.delete("/jobs/{job_id}/payload", status_code=204, tags=["jobs"], responses=refused(*REFUSES))
async def delete_payload(job_id: UUID, caller: Submitter, here: Here) -> None:
    """Take away a final job's input, result and outputs, and those of all that it has started. The job stays."""
    log.note(job_id=str(job_id))
    await deletions.delete_payload(here.db, job_id, caller)


@router.delete("/files/{file_id:file_id}", status_code=204, tags=["files"], responses=refused(*REFUSES))
async def delete_file(file_id: FileId, caller: Submitter, here: Here) -> None:
    """Delete a file that was uploaded."""
    await deletions.delete_file(here.db, file_id, caller)
