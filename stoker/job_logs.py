"""Log files: where the log of an attempt goes on, past what rows hold of it.

An attempt has one at most, an object under its own keys. Its node records it, under its lease; the API follows its
link. The bytes are ``stoker.storage``'s, the lines that are rows ``stoker.jobs``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import sql
from stoker.database import reading
from stoker.errors import LeaseLost
from stoker.events import EventKind
from stoker.jobs import Lease
from stoker.stored_json import as_possible
from stoker.tables import job_attempts, job_events, jobs

NAME = "log.txt"
CONTENT_TYPE = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class LogFile:
    """A stored log. ``token`` is that of its link, ``dropped_lines`` went beyond what the file may hold."""

    token: str
    size_bytes: int
    sha256: str
    lines: int
    dropped_lines: int

    def to_json(self) -> dict[str, Any]:
        """As events and the job's attempt show it; the link is relative."""
        return {
            "url": f"/outputs/{self.token}/{NAME}",
            "file_name": NAME,
            "content_type": CONTENT_TYPE,
            "file_size": self.size_bytes,
            "sha256": self.sha256,
            "lines": self.lines,
            "dropped_lines": self.dropped_lines,
        }


def key_of(tenant_id: UUID, job_id: UUID, attempt: int) -> str:
    """Where the log of an attempt is stored, if it was."""
    return f"{tenant_id}/{job_id}/{attempt}/{NAME}"


async def record(db: AsyncEngine, lease: Lease, message: str, file: LogFile | None) -> int:
    """Store the last line of an attempt's log, and its file where there is one; the line's seq.

    Raises:
        LeaseLost: the attempt does not hold the job any more.
    """
    shown = None if file is None else file.to_json()
    line = {"attempt": lease.attempt, "message": message} | ({} if shown is None else {"log_file": shown})
    held = {"job_id": lease.job_id, "attempt": lease.attempt}
    steps: list[sql.Step] = [
        ("append_events", held | {"count": 1, "kinds": [str(EventKind.LOG)], "data": [as_possible(line)]})
    ]
    if file is not None:
        steps.append(("set_log_file", held | {"token": file.token, "log_file": as_possible(shown)}))
    heads, *_ = await sql.at_once(db, *steps)
    if not heads:
        raise LeaseLost(f"attempt {lease.attempt} of job {lease.job_id} does not hold it any more")
    seq: int = heads[0]["last_seq"]
    return seq


async def bytes_in_rows(db: AsyncEngine, job_id: UUID) -> int:
    """How much of a job's log is in rows, of all its attempts together."""
    lines = select(func.coalesce(func.sum(func.octet_length(cast(job_events.c.data, Text))), 0))
    async with reading(db) as tx:
        found: int = (
            await tx.execute(lines.where(job_events.c.job_id == job_id, job_events.c.kind == "log"))
        ).scalar_one()
    return found


async def key_by_token(db: AsyncEngine, token: str) -> str | None:
    """Where the log is stored that a stable link names; None if none has this token."""
    chosen = (
        select(jobs.c.tenant_id, job_attempts.c.job_id, job_attempts.c.attempt)
        .join(jobs, jobs.c.id == job_attempts.c.job_id)
        .where(job_attempts.c.log_token == token)
    )
    async with reading(db) as tx:
        row = (await tx.execute(chosen)).one_or_none()
    return None if row is None else key_of(row.tenant_id, row.job_id, row.attempt)
