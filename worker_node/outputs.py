"""Outputs: the files of a result, stored under the attempt's own keys and linked from the result.

A late attempt writes under its own number and can never replace what another stored. It ends no job: the executor
does, with what this returns.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

from stoker import log
from stoker.crash_points import Point, reach
from stoker.errors import LeaseLost, StorageUnavailable
from stoker.ids import new_id
from stoker.jobs import Output, Succeeded
from stoker.storage import Storage
from worker_node.attempt import Attempt
from worker_node.host import HostResult, LocalFile
from worker_node.inputs import safe_name
from worker_node.patience import Patience

logger = log.get(__name__)


async def store(storage: Storage, attempt: Attempt, result: HostResult) -> Succeeded:
    """Store every file of ``result``, trying again while the attempt may go on.

    Raises:
        StorageUnavailable: the store stayed away, or refused.
        LeaseLost: what is stored from now on would be nobody's.
    """
    document = result.result
    outputs = [await _store_one(storage, attempt, number, file) for number, file in enumerate(result.files)]
    for output in outputs:
        link(document, output)
    return Succeeded(document, tuple(outputs))


def link_of(output: Output) -> str:
    """The stable link, relative to wherever the API is reached."""
    return f"/outputs/{output.token}/{quote(output.name)}"


def link(document: dict[str, Any], output: Output) -> None:
    """Fill in the File at the output's JSON pointer."""
    if not output.pointer:
        return
    place: Any = document
    for part in output.pointer.lstrip("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        place = place[int(name)] if isinstance(place, list) else place[name]
    place |= {
        "url": link_of(output),
        "content_type": output.content_type,
        "file_name": output.name,
        "file_size": output.size_bytes,
    }


async def discard(storage: Storage, attempt: Attempt) -> None:
    """Delete what the attempt stored: its result is not, and will not be, the job's. What a row names stays."""
    try:
        objects = await storage.delete_prefix(folder_of(attempt), keep=attempt.recorded)
    except StorageUnavailable as error:
        logger.warning("outputs_not_discarded", error=str(error)[:300], **attempt.names)
    else:
        logger.info("outputs_discarded", objects=objects, **attempt.names)


def folder_of(attempt: Attempt) -> str:
    """What the keys of the attempt's outputs begin with."""
    claim = attempt.claim
    return f"{claim.tenant_id}/{claim.job_id}/{claim.attempt}/"


async def _store_one(storage: Storage, attempt: Attempt, number: int, file: LocalFile) -> Output:
    name = safe_name(file.file_name)
    key = f"{folder_of(attempt)}{number}-{name}"
    patience = Patience(attempt, unless=attempt.stopped)
    while True:
        if attempt.lease_lost.is_set():
            raise LeaseLost("the lease was lost before the outputs were stored")
        attempt.has_stored = True
        reach(Point.NODE_STORING)
        try:
            stored = await storage.put_file(key, file.path, file.content_type)
        except StorageUnavailable as error:
            if not (error.retryable and await patience.wait("output_not_stored", error)):
                raise
        else:
            break
    reach(Point.NODE_STORED)
    return Output(
        id=new_id(),
        name=name,
        pointer=file.pointer,
        key=key,
        content_type=file.content_type,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        token=secrets.token_urlsafe(24),
        metadata=dict(file.metadata),
    )
