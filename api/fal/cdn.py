"""The bytes of uploads on fal's wire, as they come, and the addresses of the files that they become.

Whole or in parts, with the token that ``api.fal.rest`` gives or to the place that it names. A part lies on disk for as
long as it comes, since the store must be told its size first; whatever comes is counted while it is read.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field, ValidationError

from api import storing
from api.connections import BaseUrl, Connections, Here
from api.fal.rest import access_url, begin_parts, name_of, type_of
from api.fal.route import FalRoute
from api.fal.wishes import KeepS
from stoker import key_tokens, stored_files, uploads
from stoker.errors import InvalidRequest, NotFound, PayloadTooLarge, StorageRefused, Unauthenticated
from stoker.sniffing import HEAD_BYTES, media_type
from stoker.storage import Stored
from stoker.uploads import Upload

PATH = "/cdn/"
"""Under it bodies are not bounded by the application: each is here, by what it may be."""
LINK_S = 3600
MEMORY_BYTES = 1_000_000
MOST_PART_BYTES = 64 * 1024 * 1024
LEAST_PART_BYTES = 5 * 1024 * 1024
"""What a store takes, but for the last part: so many parts an upload can have at most."""
LIST_BYTES = 2_000_000

router = APIRouter(prefix="/cdn", route_class=FalRoute, include_in_schema=False)


class Part(BaseModel):
    """A part that was stored, and the tag that was answered for it."""

    number: Annotated[int, Field(alias="partNumber", ge=1, le=10_000)]
    etag: Annotated[str, Field(max_length=200)]


class Parts(BaseModel):
    """All parts of an upload, in any order."""

    parts: Annotated[list[Part], Field(min_length=1, max_length=10_000)]


UploadId = Annotated[UUID, Path()]
Number = Annotated[int, Path(ge=1, le=10_000)]
FileId = Annotated[str, Path(pattern=r"^file_[0-9a-f]{32}$")]
FileName = Annotated[str, Header(alias="x-fal-file-name", max_length=1000)]
ContentType = Annotated[str, Header(max_length=200)]


async def _holder(here: Here, authorization: Annotated[str | None, Header()] = None) -> UUID:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("the request carries no upload token", hint="POST /rest/storage/auth/token gives one.")
    caller = await key_tokens.verify_for_uploads(here.db, token.strip())
    await here.rates.spend(caller)
    return caller.tenant_id


Holder = Annotated[UUID, Depends(_holder)]
"""The tenant of an upload token, as a route's parameter."""


@router.post("/files/upload")
async def upload(
    request: Request,
    tenant_id: Holder,
    here: Here,
    base_url: BaseUrl,
    keep_s: KeepS,
    x_fal_file_name: FileName = "",
    content_type: ContentType = "",
) -> JSONResponse:
    """Store the request's body."""
    new = uploads.new_upload(tenant_id, name_of(_text(x_fal_file_name)), type_of(content_type), keep_s)
    await _store(here, new, request.stream())
    return JSONResponse({"access_url": access_url(new.file_id, new.file_name, base_url)})


@router.post("/files/upload/multipart")
async def upload_in_parts(
    tenant_id: Holder,
    here: Here,
    base_url: BaseUrl,
    keep_s: KeepS,
    x_fal_file_name: FileName = "",
    content_type: ContentType = "",
) -> JSONResponse:
    """Begin a file that comes in parts."""
    new = await begin_parts(here, tenant_id, _text(x_fal_file_name), content_type, keep_s)
    return JSONResponse({"access_url": access_url(new.file_id, new.file_name, base_url), "uploadId": str(new.id)})


@router.put("/files/{file_id}/{name}/multipart/{upload_id}/{number}")
async def put_part_of_file(
    request: Request, file_id: FileId, upload_id: UploadId, number: Number, tenant_id: Holder, here: Here
) -> JSONResponse:
    """Store a part of a file, for the holder of a token."""
    return await _put_part(request, here, await _own(here, upload_id, file_id, tenant_id), number)


@router.post("/files/{file_id}/{name}/multipart/{upload_id}/complete")
async def complete_file(
    request: Request, file_id: FileId, upload_id: UploadId, tenant_id: Holder, here: Here
) -> JSONResponse:
    """Make the file of its parts, for the holder of a token."""
    return await _complete(request, here, await _own(here, upload_id, file_id, tenant_id))


@router.put("/uploads/{upload_id}")
async def put(request: Request, upload_id: UploadId, here: Here) -> JSONResponse:
    """Store all bytes of an upload. To know its id is the right to."""
    found = await uploads.get(here.db, upload_id)
    if found.multipart_id is not None:
        raise InvalidRequest("this upload comes in parts", hint="PUT them to /{number} below this place.")
    await _store(here, found, request.stream())
    await uploads.complete(here.db, found)
    return JSONResponse({})


@router.put("/uploads/{upload_id}/{number}")
async def put_part(request: Request, upload_id: UploadId, number: Number, here: Here) -> JSONResponse:
    """Store a part of an upload."""
    return await _put_part(request, here, await uploads.get(here.db, upload_id), number)


@router.post("/uploads/{upload_id}/complete")
async def complete(request: Request, upload_id: UploadId, here: Here) -> JSONResponse:
    """Make the file of its parts."""
    return await _complete(request, here, await uploads.get(here.db, upload_id))


@router.get("/files/{file_id}/{name}")
@router.head("/files/{file_id}/{name}")
async def follow(request: Request, file_id: FileId, here: Here) -> Response:
    """Lead to the bytes of a file that was uploaded here. To know its address is the right to."""
    if not uploads.is_public(file_id):
        raise NotFound("there is no file with this address")
    row = await stored_files.get(here.db, file_id, None)
    link = here.storage.presign_get(
        row.key,
        file_name=row.file_name,
        content_type=row.content_type,
        expires_s=LINK_S,
        method="HEAD" if request.method == "HEAD" else "GET",
    )
    return RedirectResponse(link, 302, {"cache-control": "no-store", "referrer-policy": "no-referrer"})


async def _own(here: Connections, upload_id: UUID, file_id: str, tenant_id: UUID) -> Upload:
    found = await uploads.get(here.db, upload_id)
    if (found.file_id, found.tenant_id) != (file_id, tenant_id):
        raise NotFound("there is no such upload")
    return found


async def _store(here: Connections, new: Upload, chunks: AsyncIterator[bytes]) -> None:
    about = (new.tenant_id, new.file_id, new.file_name, new.content_type)
    await storing.store(here, *about, chunks, keep_s=new.keep_s)


async def _put_part(request: Request, here: Connections, found: Upload, number: int) -> JSONResponse:
    if found.multipart_id is None:
        raise InvalidRequest("this upload comes as a whole", hint="PUT all of it to this place's parent.")
    if number > here.settings.max_upload_bytes // LEAST_PART_BYTES + 1:
        raise PayloadTooLarge(f"a file may have {here.settings.max_upload_bytes} bytes")
    size = 0
    with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as part:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MOST_PART_BYTES:
                raise PayloadTooLarge(f"a part may have {MOST_PART_BYTES} bytes")
            part.write(chunk)
        part.seek(0)
        tag = await here.storage.put_part(found.key, found.multipart_id, number, part)
    # Their Python client reads the tag from the header, their JavaScript client from the body.
    return JSONResponse({"partNumber": number, "etag": tag}, headers={"etag": tag})


async def _complete(request: Request, here: Connections, found: Upload) -> JSONResponse:
    if found.multipart_id is None:
        raise InvalidRequest("this upload comes as a whole")
    parts = await _listed(request)
    try:
        tags = {part.number: part.etag for part in parts}
        await here.storage.complete_multipart(found.key, found.multipart_id, tags)
    except StorageRefused as error:
        raise InvalidRequest("these are not the parts of this upload", hint=str(error)) from error
    size = await here.storage.size_of(found.key) or 0
    if size > here.settings.max_upload_bytes:
        await here.storage.delete([found.key])
        raise PayloadTooLarge(f"a file may have {here.settings.max_upload_bytes} bytes")
    kind = media_type(await here.storage.beginning(found.key, HEAD_BYTES), found.content_type)
    stored = Stored(found.key, size, "")  # nobody has seen all of its bytes
    about = (found.tenant_id, found.file_id, found.file_name, kind)
    await storing.record(here, *about, stored, keep_s=found.keep_s)
    await uploads.complete(here.db, found)
    return JSONResponse({})


async def _listed(request: Request) -> Sequence[Part]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LIST_BYTES:
            raise PayloadTooLarge(f"a list of parts may have {LIST_BYTES} bytes")
    try:
        return Parts.model_validate_json(bytes(body)).parts
    except ValidationError as error:
        raise InvalidRequest(
            "the body is no list of parts", hint='Send {"parts": [{"partNumber", "etag"}]}.'
        ) from error


def _text(header: str) -> str:
    """A header as its sender meant it: HTTP has no letters beyond Latin-1."""
    return re.sub(r"\ufffd", "_", header.encode("latin-1", "replace").decode("utf-8", "replace"))
