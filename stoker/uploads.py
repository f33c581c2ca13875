"""Uploads: files whose bytes are announced first and come later, whole or in parts.

An upload's id is random: who knows it may send the bytes, until they are there or its time has ended. The file that it
becomes has the id in its own, and whoever knows that may read it. The bytes are ``stoker.storage``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import stored_files
from stoker.database import reading
from stoker.errors import NotFound
from stoker.tables import uploads

OPEN_FOR = timedelta(hours=24)
PUBLIC = 4
"""The version of random UUIDs; those of other files tell when they were made, and can be guessed more easily."""


@dataclass(frozen=True)
class Upload:
    """``multipart_id`` is the store's, where the bytes come in parts. ``keep_s``: how long the file is to be kept."""

    id: UUID
    tenant_id: UUID
    key: str
    content_type: str
    file_name: str
    multipart_id: str | None
    keep_s: float | None = None

    @property
    def file_id(self) -> str:
        return f"file_{self.id.hex}"


def new_upload(tenant_id: UUID, file_name: str, content_type: str, keep_s: float | None) -> Upload:
    """An upload that nobody knows of yet."""
    upload_id = uuid4()
    key = stored_files.object_key(tenant_id, f"file_{upload_id.hex}", file_name)
    return Upload(upload_id, tenant_id, key, content_type, file_name, None, keep_s)


def is_public(file_id: str) -> bool:
    """Whether to know the id of a file is the right to read it."""
    return UUID(file_id.removeprefix("file_")).version == PUBLIC


async def begin(db: AsyncEngine, upload: Upload) -> None:
    """Let its bytes come."""
    row = {
        "id": upload.id,
        "tenant_id": upload.tenant_id,
        "key": upload.key,
        "content_type": upload.content_type,
        "file_name": upload.file_name,
        "multipart_id": upload.multipart_id,
        "keep_s": upload.keep_s,
        "expires_at": func.stoker_now() + OPEN_FOR,
    }
    async with db.begin() as tx:
        await tx.execute(insert(uploads).values(row))


async def get(db: AsyncEngine, upload_id: UUID) -> Upload:
    """An upload whose bytes may come.

    Raises:
        NotFound: there is none, it is complete, or its time has ended.
    """
    is_open = (uploads.c.expires_at > func.stoker_now()) & uploads.c.completed_at.is_(None)
    async with reading(db) as tx:
        row = (await tx.execute(select(uploads).where(uploads.c.id == upload_id, is_open))).one_or_none()
    if row is None:
        raise NotFound("there is no such upload, or it is complete", hint="Begin a new one.")
    return _upload(row)


async def complete(db: AsyncEngine, upload: Upload) -> None:
    """Take no more bytes."""
    async with db.begin() as tx:
        await tx.execute(update(uploads).where(uploads.c.id == upload.id).values(completed_at=func.stoker_now()))


async def expired(db: AsyncEngine, limit: int = 100) -> list[Upload]:
    """Uploads whose time has ended, the bytes of those that are not complete included."""
    async with reading(db) as tx:
        over = select(uploads).where(uploads.c.expires_at <= func.stoker_now()).limit(limit)
        return [_upload(row) for row in await tx.execute(over)]


async def forget(db: AsyncEngine, upload_ids: list[UUID]) -> None:
    """Delete their rows."""
    async with db.begin() as tx:
        await tx.execute(delete(uploads).where(uploads.c.id.in_(upload_ids)))


def _upload(row: Row[Any]) -> Upload:
    return Upload(row.id, row.tenant_id, row.key, row.content_type, row.file_name, row.multipart_id, row.keep_s)
