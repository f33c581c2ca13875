"""Storing: the bytes of a file that a caller sends become an object and its row. What both faces of the API do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from anyio import CancelScope
from sqlalchemy.exc import SQLAlchemyError

from api.connections import Connections
from stoker import log, stored_files
from stoker.errors import StorageUnavailable
from stoker.sniffing import HEAD_BYTES, media_type
from stoker.storage import Stored
from stoker.stored_files import StoredFile

logger = log.get(__name__)


async def store(
    here: Connections,
    tenant_id: UUID,
    file_id: str,
    file_name: str,
    content_type: str,
    chunks: AsyncIterator[bytes],
    *,
    keep_s: float | None,
) -> StoredFile:
    """Store what ``chunks`` yields, to be kept for ``keep_s`` if that is given.

    ``content_type`` is what its sender says: its first bytes decide.

    Raises:
        PayloadTooLarge, StorageUnavailable: nothing is kept.
    """
    key = stored_files.object_key(tenant_id, file_id, file_name)
    head = await _head(chunks)
    content_type = media_type(head, content_type)
    stored = await here.storage.put_stream(key, _after(head, chunks), content_type, here.settings.max_upload_bytes)
    return await record(here, tenant_id, file_id, file_name, content_type, stored, keep_s=keep_s)


async def record(
    here: Connections,
    tenant_id: UUID,
    file_id: str,
    file_name: str,
    content_type: str,
    stored: Stored,
    *,
    keep_s: float | None,
) -> StoredFile:
    """Make the row of an object that is stored, or have it say what is stored there now."""
    try:
        return await stored_files.insert(
            here.db,
            file_id=file_id,
            tenant_id=tenant_id,
            key=stored.key,
            content_type=content_type,
            file_name=file_name,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            keep_s=keep_s,
        )
    except BaseException:
        # Shielded, for the caller may have hung up.
        with CancelScope(shield=True):
            await _discard(here, stored.key)
        raise


async def _discard(here: Connections, key: str) -> None:
    """Delete an object that no row names: nothing else ever would. A row may be there although ours is not."""
    try:
        if not await stored_files.is_named(here.db, key):
            await here.storage.delete([key])
    except (StorageUnavailable, SQLAlchemyError) as error:
        logger.warning("upload_not_deleted", key=key, error=str(error)[:300])


async def _head(chunks: AsyncIterator[bytes]) -> bytes:
    """All that had come when there was enough to tell its type."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return bytes(head)


async def _after(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk
