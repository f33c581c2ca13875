"""Passed on: files that a job's app has made for another app's job, stored so that this one's input can name them.

They are files of the tenant, and go with the job whose app made them. The same file has the same id in each attempt of
it, so that another attempt makes the same request and finds the same child. ``worker_node.children`` asks.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import stored_files
from stoker.errors import JobCancelled, NotFound, StorageUnavailable
from stoker.jobs import Claim
from stoker.storage import Storage, Stored
from worker_node.attempt import Attempt
from worker_node.host_values import LocalFile
from worker_node.patience import Patience


async def id_of(claim: Claim, file: LocalFile) -> str:
    """What an input names it by. Of a job it says the bytes, the type and the name."""

    def read() -> str:
        with file.path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        named = f"{claim.job_id} {sha256} {file.content_type} {file.file_name}"
        return f"file_{hashlib.sha256(named.encode()).hexdigest()[:32]}"

    return await asyncio.to_thread(read)


async def is_known(db: AsyncEngine, claim: Claim, file_id: str) -> bool:
    """Whether it is stored already, by this call or another one of the job."""
    try:
        await stored_files.get(db, file_id, claim.tenant_id)
    except NotFound:
        return False
    return True


async def put(storage: Storage, attempt: Attempt, file_id: str, file: LocalFile) -> Stored:
    """Store the bytes, trying again while the attempt may go on.

    Raises:
        StorageUnavailable: the store refused.
        JobCancelled: the attempt was stopped before.
    """
    claim = attempt.claim
    key = f"{claim.tenant_id}/{claim.job_id}/files/{file_id}/{stored_files.safe_name(file.file_name)}"
    patience = Patience(attempt, unless=attempt.stopped)
    while True:
        try:
            return await storage.put_file(key, file.path, file.content_type)
        except StorageUnavailable as error:
            if not error.retryable:
                raise
            if not await patience.wait("file_not_passed_on", error):
                raise JobCancelled("the job was stopped before its file was stored") from error


async def record(db: AsyncEngine, claim: Claim, file_id: str, file: LocalFile, stored: Stored) -> None:
    """Make it a file of the tenant."""
    await stored_files.insert(
        db,
        file_id=file_id,
        tenant_id=claim.tenant_id,
        key=stored.key,
        content_type=file.content_type,
        file_name=file.file_name,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        job_id=claim.job_id,
    )


def link(document: dict[str, Any], file: LocalFile, file_id: str) -> None:
    """Name it in the input, where it stands without a link."""
    place: Any = document
    for part in file.pointer.lstrip("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        place = place[int(name)] if isinstance(place, list) else place[name]
    place["url"] = file_id
