"""Files that jobs take in: streamed through the API, or PUT straight into the object store with a presigned link."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.convertors import StringConvertor, register_url_convertor

from api import storing
from api.answers import File, FileWithLink, Upload, answers
from api.auth import Reader, Submitter
from api.bodies import FILE_NAME, MEDIA_TYPE, JsonRoute, NewUploadBody
from api.connections import BaseUrl, Here
from stoker import stored_files
from stoker.errors import Forbidden, InvalidRequest, NotFound, PayloadTooLarge
from stoker.manifest import MOST_KEPT_S
from stoker.sniffing import UNKNOWN
from stoker.stored_files import StoredFile

UPLOAD_PATH = "/v1/files"
LINK_S = 3600
DEFAULT_TYPE = "application/octet-stream"
BYTES = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (DEFAULT_TYPE, "image/*")}
"""What a body is in the document, for example: whatever it is, of its own media type."""


class FileIdConvertor(StringConvertor):
    """So that ``uploads`` is none: a GET of it is a method that it does not know."""

    regex = "file_[0-9a-f]{32}"


register_url_convertor("file_id", FileIdConvertor())
router = APIRouter(prefix=UPLOAD_PATH, tags=["files"], route_class=JsonRoute)

FileName = Annotated[str, Query(min_length=1, max_length=200, pattern=FILE_NAME)]
FileId = Annotated[str, Path(pattern=r"^file_[0-9a-f]{32}$")]


@router.post(
    "",
    status_code=201,
    responses=answers(201, File, Forbidden),
    openapi_extra={"requestBody": {"content": BYTES}},
)
async def upload(
    request: Request,
    caller: Submitter,
    here: Here,
    base_url: BaseUrl,
    file_name: FileName = "file",
    keep: Annotated[float | None, Query(gt=0, le=MOST_KEPT_S, description="Seconds that it is to be kept.")] = None,
    content_type: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> dict[str, Any]:
    """Store the request's body. The answer's ``url`` is what an input names."""
    kind = (content_type or DEFAULT_TYPE).partition(";")[0].strip().lower()
    if not re.fullmatch(MEDIA_TYPE, kind) or kind == "multipart/form-data":
        raise InvalidRequest(
            f"{kind[:100]!r} is no media type of a file",
            hint="Send the bytes as the body, with the file's own Content-Type; with curl use --data-binary @file.",
        )
    file_id = stored_files.new_file_id()
    row = await storing.store(here, caller.tenant_id, file_id, file_name, kind, request.stream(), keep_s=keep)
    return _file_json(row, base_url)


@router.post("/uploads", status_code=201, responses=answers(201, Upload, Forbidden))
async def begin_upload(body: NewUploadBody, caller: Submitter, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """Make a link that takes one PUT of exactly this size and type. The file can be used once that PUT is done."""
    if body.size_bytes > here.settings.max_upload_bytes:
        raise PayloadTooLarge(f"a file may have {here.settings.max_upload_bytes} bytes")
    file_id = stored_files.new_file_id()
    key = stored_files.object_key(caller.tenant_id, file_id, body.file_name)
    url = here.storage.presign_put(key, content_type=body.content_type, size_bytes=body.size_bytes, expires_s=LINK_S)
    row = await stored_files.insert(
        here.db,
        file_id=file_id,
        tenant_id=caller.tenant_id,
        key=key,
        content_type=body.content_type,
        file_name=body.file_name,
        size_bytes=body.size_bytes,
        sha256="",
        keep_s=body.keep,
    )
    expires_at = datetime.now(UTC) + timedelta(seconds=LINK_S)
    headers = {"content-type": body.content_type, "content-length": str(body.size_bytes)}
    return {
        "file": _file_json(row, base_url),
        "upload": {"method": "PUT", "url": url, "headers": headers, "expires_at": expires_at.isoformat()},
    }


@router.get("/{file_id:file_id}", responses=answers(200, FileWithLink, NotFound))
async def get(file_id: FileId, caller: Reader, here: Here, base_url: BaseUrl) -> dict[str, Any]:
    """A file, with a link to its bytes that lasts an hour."""
    row = await stored_files.get(here.db, file_id, caller.tenant_id)
    kind = row.content_type if row.sha256 else UNKNOWN  # what was PUT past us may be anything
    link = here.storage.presign_get(row.key, file_name=row.file_name, content_type=kind, expires_s=LINK_S)
    return {**_file_json(row, base_url), "download_url": link}


def _file_json(row: StoredFile, base_url: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.id,
        "file_name": row.file_name,
        "content_type": row.content_type,
        "file_size": row.size_bytes,
        "sha256": row.sha256 or None,
        "created_at": row.created_at.isoformat(),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
        "links": {"self": f"{base_url}{UPLOAD_PATH}/{row.id}"},
    }
