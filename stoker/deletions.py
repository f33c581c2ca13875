"""Deletions: a caller has a final job, its payload or an uploaded file taken away, at once and for good.

The rows are gone when it returns, objects soon after (``stoker.removals``). Each is in the audit log. Routes call this;
``stoker.retention`` says what goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stoker import audit, retention
from stoker.database import reading
from stoker.errors import Conflict, NotFound
from stoker.keys import Caller
from stoker.tables import files, object_removals

# A job, all that it has started and they in turn, and the job at the top of it all: each with whether it has ended.
FAMILY = text("""
WITH RECURSIVE below AS (
    SELECT id FROM jobs WHERE id = :job_id AND tenant_id = :tenant_id
    UNION ALL
    SELECT c.child_id FROM below b JOIN job_children c ON c.parent_id = b.id
)
SELECT j.id, j.depth, j.state, j.finished_at IS NOT NULL AS is_final, true AS is_below
FROM below b JOIN jobs j ON j.id = b.id
UNION ALL
SELECT j.id, j.depth, j.state, j.finished_at IS NOT NULL, false
FROM below b JOIN job_children c ON c.child_id = b.id JOIN jobs j ON j.id = c.root_id WHERE b.id = :job_id
""")
AT_ONCE = 100
AT_LATER = text("stoker_now() + make_interval(secs => :later_s)").bindparams(later_s=retention.LATER_S)


async def delete_job(db: AsyncEngine, job_id: UUID, by: Caller) -> None:
    """Delete a job and all that it has started: rows, events, outputs, deliveries. Usage stays.

    Raises:
        NotFound: there is no such job, or it is another tenant's.
        Conflict: it, or one of its family, is not final.
    """
    async with reading(db) as tx:
        below = await _final_family(tx, job_id, by.tenant_id)
    for part in _parts(below):
        async with db.begin() as tx:
            await retention.delete_jobs(tx, part, is_recent=True)
            if part[-1] == job_id:
                await audit.record(tx, "job.delete", str(job_id), by=by, about=by.tenant_id, jobs=len(below))


async def delete_payload(db: AsyncEngine, job_id: UUID, by: Caller) -> list[str]:
    """Take away input, result and outputs of a job and of all that it has started; the links that lead nowhere now.

    What was taken away before is no error.

    Raises:
        NotFound, Conflict: as ``delete_job``.
    """
    async with reading(db) as tx:
        below = await _final_family(tx, job_id, by.tenant_id)
        links = text("SELECT token, name FROM job_outputs WHERE job_id = ANY(:ids) ORDER BY job_id, position")
        found = (await tx.execute(links, {"ids": below})).all()
    for part in _parts(below):
        async with db.begin() as tx:
            await retention.remove_payloads(tx, part, outputs_of=part, is_recent=True)
            if part[-1] == job_id:
                await audit.record(tx, "job.delete_payload", str(job_id), by=by, about=by.tenant_id, jobs=len(below))
    return [f"/outputs/{row.token}/{quote(row.name)}" for row in found]


async def delete_file(db: AsyncEngine, file_id: str, by: Caller) -> None:
    """Delete an uploaded file. A job that names it and has not begun will fail.

    Raises:
        NotFound: there is none with this id, or it is another tenant's.
        Conflict: a job's app made it for another job; it goes with that one.
    """
    mine = (files.c.id == file_id) & (files.c.tenant_id == by.tenant_id)
    async with db.begin() as tx:
        row = (await tx.execute(select(files.c.key, files.c.job_id).where(mine))).one_or_none()
        if row is None:
            raise NotFound(f"there is no file {file_id!r}")
        if row.job_id is not None:
            raise Conflict(f"file {file_id!r} belongs to job {row.job_id}", hint="Delete that job, or its payload.")
        await tx.execute(delete(files).where(mine))
        # Who has a presigned link may still PUT to it.
        await tx.execute(insert(object_removals).values(prefix=row.key, is_folder=False))
        await tx.execute(insert(object_removals).values(prefix=row.key, is_folder=False, due_at=AT_LATER))
        await audit.record(tx, "file.delete", file_id, by=by, about=by.tenant_id)


async def _final_family(tx: AsyncConnection, job_id: UUID, tenant_id: UUID) -> list[UUID]:
    """Children before those that started them."""
    found = (await tx.execute(FAMILY, {"job_id": job_id, "tenant_id": tenant_id})).all()
    if not found:
        raise NotFound(f"there is no job {job_id}")
    for row in found:
        if not row.is_final:
            role = "" if row.id == job_id else ", which it started" if row.is_below else ", which needs it"
            raise Conflict(f"job {row.id}{role} is {row.state}", hint="Cancel it first, or wait for its end.")
    return [row.id for row in sorted(found, key=lambda row: row.depth, reverse=True) if row.is_below]


def _parts(below: list[UUID]) -> Iterator[list[UUID]]:
    """A transaction each. What was interrupted is asked for again, at the job itself, which is the last."""
    for start in range(0, len(below), AT_ONCE):
        yield below[start : start + AT_ONCE]
