"""Status: the little of a job that one who waits for it asks again and again. One statement, planned once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import job_queries, sql
from stoker.errors import NotFound
from stoker.events import Event, EventKind
from stoker.job_values import COUNTED
from stoker.states import JobState

PAGE = 500


@dataclass(frozen=True)
class JobStatus:
    """``queue_position``: while it is queued, how many of its lane come before it. ``run_s``: the last attempt's."""

    app: str
    state: JobState
    error: Mapping[str, Any] | None
    queue_position: int | None
    run_s: float | None
    last_seq: int


async def find(db: AsyncEngine, job_id: UUID, tenant_id: UUID) -> JobStatus:
    """Read it now.

    Raises:
        NotFound: there is no such job, or it is another tenant's.
    """
    found = await sql.ask(db, "find_status", {"job_id": job_id, "tenant_id": tenant_id, "counted": COUNTED})
    if not found:
        raise NotFound(f"there is no job {job_id}")
    row = found[0]
    return JobStatus(row["app"], JobState(row["state"]), row["error"], row["position"], row["run_s"], row["last_seq"])


async def log_lines(db: AsyncEngine, job_id: UUID) -> list[Event]:
    """All rows of the job's log, in order."""
    lines: list[Event] = []
    seq, is_full = 0, True
    while is_full:
        rows = await job_queries.events_after(db, job_id, seq, PAGE)
        lines += [row for row in rows if row.kind is EventKind.LOG]
        is_full = len(rows) == PAGE
        seq = rows[-1].id.seq if rows else seq
    return lines
