"""What fal's clients ask its REST host for: a token for uploads, and places to send a file's bytes to.

The bytes themselves go to ``api.fal.cdn``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from api.auth import Submitter
from api.bodies import MEDIA_TYPE
from api.connections import BaseUrl, Connections, Here
from api.fal.route import FalRoute
from api.fal.wishes import KeepS
from stoker import key_tokens, stored_files, uploads
from stoker.uploads import Upload

DEFAULT_TYPE = "application/octet-stream"

router = APIRouter(prefix="/rest/storage", route_class=FalRoute, include_in_schema=False)


class NewFile(BaseModel):
    """A file that is to come."""

    file_name: Annotated[str, Field(max_length=1000)] = ""
    content_type: Annotated[str, Field(max_length=200)] = ""


@router.post("/auth/token")
async def token(caller: Submitter, here: Here, base_url: BaseUrl) -> JSONResponse:
    """A token with which files are uploaded for an hour."""
    issued = await key_tokens.issue_for_uploads(here.db, caller)
    return JSONResponse(
        {
            "token": issued.token,
            "token_type": "Bearer",
            "base_url": f"{base_url}/cdn",
            "expires_at": datetime.fromtimestamp(issued.expires_at, UTC).isoformat(),
        }
    )


@router.post("/upload/initiate")
async def initiate(body: NewFile, caller: Submitter, here: Here, base_url: BaseUrl, keep_s: KeepS) -> JSONResponse:
    """Where one PUT of all bytes goes, and the address that the file will have."""
    upload = uploads.new_upload(caller.tenant_id, name_of(body.file_name), type_of(body.content_type), keep_s)
    await uploads.begin(here.db, upload)
    return _places(upload, base_url)


@router.post("/upload/initiate-multipart")
async def initiate_multipart(
    body: NewFile, caller: Submitter, here: Here, base_url: BaseUrl, keep_s: KeepS
) -> JSONResponse:
    """The same for bytes that come in parts."""
    return _places(await begin_parts(here, caller.tenant_id, body.file_name, body.content_type, keep_s), base_url)


async def begin_parts(
    here: Connections, tenant_id: UUID, file_name: str, content_type: str, keep_s: float | None
) -> Upload:
    """Begin an upload in parts."""
    upload = uploads.new_upload(tenant_id, name_of(file_name), type_of(content_type), keep_s)
    multipart_id = await here.storage.begin_multipart(upload.key, upload.content_type)
    upload = replace(upload, multipart_id=multipart_id)
    await uploads.begin(here.db, upload)
    return upload


def access_url(file_id: str, file_name: str, base_url: str) -> str:
    """The address of a file; its last part is there for people to read."""
    return f"{base_url}/cdn/files/{file_id}/{stored_files.safe_name(file_name)}"


def name_of(given: str) -> str:
    """A name as a file may have it: without folders, and not too long."""
    return re.sub(r"[\x00-\x1f/\\]", "_", given)[-200:] or "file"


def type_of(given: str) -> str:
    """A media type without parameters; what is none is bytes."""
    kind = given.partition(";")[0].strip().lower()
    return kind if re.fullmatch(MEDIA_TYPE, kind) else DEFAULT_TYPE


def _places(upload: Upload, base_url: str) -> JSONResponse:
    file_url = access_url(upload.file_id, upload.file_name, base_url)
    return JSONResponse({"upload_url": f"{base_url}/cdn/uploads/{upload.id}", "file_url": file_url})
