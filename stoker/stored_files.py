"""Rows of files that callers uploaded. The bytes are ``stoker.storage``'s."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine


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
    raise NotImplementedError


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
    raise NotImplementedError


async def get(db: AsyncEngine, file_id: str, tenant_id: UUID) -> StoredFile:
    """A tenant's file.

    Raises:
        NotFound: the tenant has none with this id.
    """
    raise NotImplementedError
