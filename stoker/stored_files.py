"""Rows of files that callers uploaded. The bytes are ``stoker.storage``'s."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, exists, func, select
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
    expires_at: datetime | None = None


def new_file_id() -> str:
    """A fresh id for a file: its key in the object store holds it, so it is made before the bytes are stored."""
    return f"file_{new_id().hex}"


def object_key(tenant_id: UUID, file_id: str, file_name: str) -> str:
    """The object's key. Of a user's name only letters that no store and no shell reads twice are kept."""
    return f"{tenant_id.hex}/files/{file_id}/{safe_name(file_name)}"


def safe_name(file_name: str) -> str:
    """``file_name`` as one plain part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", file_name)[-100:].lstrip(".") or "file"


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
    job_id: UUID | None = None,
    keep_s: float | None = None,
) -> StoredFile:
    """Record a file whose bytes are stored, for ``keep_s`` at most.

    One that a job's app has made goes with that job, and may be known; so may an upload whose bytes came again.
    """
    row: dict[str, Any] = {
        "job_id": job_id,
        "id": file_id,
        "tenant_id": tenant_id,
        "key": key,
        "content_type": content_type,
        "file_name": file_name,
        "size_bytes": size_bytes,
        "sha256": sha256,
        "expires_at": None if keep_s is None else func.stoker_now() + timedelta(seconds=keep_s),
    }
    changes = ("job_id",) if job_id is not None else ("content_type", "size_bytes", "sha256")
    storing = insert_into(files).values(row)
    storing = storing.on_conflict_do_update(index_elements=["id"], set_={name: row[name] for name in changes})
    async with db.begin() as tx:
        return _file((await tx.execute(storing.returning(files))).one())


async def get(db: AsyncEngine, file_id: str, tenant_id: UUID | None) -> StoredFile:
    """A tenant's file; anybody's if ``tenant_id`` is None.

    Raises:
        NotFound: the tenant has none with this id, or its time has ended.
    """
    is_kept = files.c.expires_at.is_(None) | (files.c.expires_at > func.stoker_now())
    chosen = select(files).where(files.c.id == file_id, is_kept)
    if tenant_id is not None:
        chosen = chosen.where(files.c.tenant_id == tenant_id)
    async with reading(db) as tx:
        found = await tx.execute(chosen)
        row = found.one_or_none()
    if row is None:
        raise NotFound(f"there is no file {file_id!r}", hint="Check the id. It may have been deleted, or have expired.")
    return _file(row)


async def is_named(db: AsyncEngine, key: str) -> bool:
    """Whether an object is some file's."""
    async with reading(db) as tx:
        return (await tx.execute(select(exists().where(files.c.key == key)))).scalar_one()


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
        expires_at=row.expires_at,
    )
