"""Rows of files that callers uploaded. The bytes are ``stoker.storage``'s."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.database import reading
from stoker.errors import NotFound
from stoker.ids import new_id
from stoker.tables import files


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file. ``id`` is ``file_`` and a uuid's hex."""

    id: str
    tenant_id: UUID
    key: str
    content_type: str
    file_name: str
    size_bytes: int
    sha256: str
    created_at: datetime


def new_file_id() -> str:
    """A fresh id for a file: its key in the object store holds it, so it is made before the bytes are stored."""
    return f"file_{new_id().hex}"


async def insert(
    db: AsyncEngine,
    *,
    file_id: str,
    tenant_id: UUID,
    key: str,
    content_type: str,
    file_name: str,
    size_bytes: int,
    sha256: str,
) -> StoredFile:
    """Record a file whose bytes are stored."""
    row = {
        "id": file_id,
        "tenant_id": tenant_id,
        "key": key,
        "content_type": content_type,
        "file_name": file_name,
        "size_bytes": size_bytes,
        "sha256": sha256,
    }
    async with db.begin() as tx:
        return _file((await tx.execute(insert_into(files).values(row).returning(files))).one())


async def get(db: AsyncEngine, file_id: str, tenant_id: UUID) -> StoredFile:
    """A tenant's file.

    Raises:
        NotFound: the tenant has none with this id.
    """
    async with reading(db) as tx:
        found = await tx.execute(select(files).where(files.c.id == file_id, files.c.tenant_id == tenant_id))
        row = found.one_or_none()
    if row is None:
        raise NotFound(f"there is no file {file_id!r}")
    return _file(row)


def _file(row: Row[Any]) -> StoredFile:
    return StoredFile(
        id=row.id,
        tenant_id=row.tenant_id,
        key=row.key,
        content_type=row.content_type,
        file_name=row.file_name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
    )
