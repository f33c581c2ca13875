"""Sweeps: which jobs, files and acts have been kept for as long as they may be. ``stoker.retention`` takes them away.

Each call is one short transaction that acts on a bounded number of them, and one replica's at a time. Whatever a job
has started goes no sooner than by the time of the job at the top: that may have passed its files on, and another
attempt of it would ask for its children's results. The control loop calls it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stoker import retention

MY_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('stoker retention', 0))")
UNSTORED = text("""
SELECT j.id, (t.keep_outputs_s IS NULL AND NOT t.store_io) AS with_outputs
FROM jobs j LEFT JOIN job_children c ON c.child_id = j.id JOIN jobs t ON t.id = coalesce(c.root_id, j.id)
WHERE NOT j.store_io AND j.payload_removed_at IS NULL
  AND j.finished_at <= stoker_now() - make_interval(secs => :keep_s)
  AND t.finished_at <= stoker_now() - make_interval(secs => :keep_s)
ORDER BY j.finished_at LIMIT :limit FOR UPDATE OF j SKIP LOCKED
""")
EXPIRED = text("""
SELECT j.id FROM jobs j
WHERE j.outputs_expire_at <= stoker_now() AND j.outputs_removed_at IS NULL
  AND NOT EXISTS (SELECT FROM job_children c JOIN jobs k ON k.id = c.child_id
                  WHERE c.root_id = j.id AND k.finished_at IS NULL)
ORDER BY j.outputs_expire_at LIMIT :limit FOR UPDATE OF j SKIP LOCKED
""")
PLACE = text("""
INSERT INTO retention_places (kind) VALUES (:kind)
ON CONFLICT (kind) DO UPDATE SET kind = excluded.kind RETURNING finished_at, job_id
""")
PAST_PLACE = text("""
SELECT id, finished_at FROM jobs
WHERE (finished_at, id) > (:finished_at, :job_id) AND finished_at >= :finished_at AND parent_id IS NULL
  AND finished_at <= stoker_now() - make_interval(secs => :keep_s)
ORDER BY finished_at, id LIMIT :limit
""")
MOVE = text("UPDATE retention_places SET finished_at = :finished_at, job_id = :job_id WHERE kind = :kind")
BELOW = """
SELECT j.id FROM job_children c JOIN jobs j ON j.id = c.child_id
WHERE c.root_id = ANY(:ids) AND j.finished_at IS NOT NULL AND {still_has} LIMIT :limit
"""
# Asked of one job after the other: as EXISTS they might be answered by reading all events there are.
STILL_HAS = {
    "payloads": "j.payload_removed_at IS NULL",
    "outputs": "j.outputs_removed_at IS NULL",
    "events": """(SELECT min(e.seq) FROM job_events e WHERE e.job_id = j.id)
                 < (SELECT h.last_seq FROM job_heads h WHERE h.job_id = j.id)""",
    "delivery tries": """0 < (SELECT count(*) FROM webhook_deliveries d JOIN delivery_attempts t ON t.delivery_id = d.id
                              WHERE d.job_id = j.id AND d.state <> 'pending')""",
}
OLD_JOBS = text("""
SELECT j.id
FROM jobs j LEFT JOIN job_children c ON c.child_id = j.id JOIN jobs t ON t.id = coalesce(c.root_id, j.id)
WHERE j.finished_at <= stoker_now() - make_interval(secs => :keep_s)
  AND t.finished_at <= stoker_now() - make_interval(secs => :keep_s)
  AND NOT EXISTS (SELECT FROM jobs child WHERE child.parent_id = j.id)
ORDER BY j.finished_at LIMIT :limit FOR UPDATE OF j SKIP LOCKED
""")
# Who has a presigned link may still PUT to it.
FILES = """
WITH gone AS (
    DELETE FROM files WHERE id IN (SELECT id FROM files WHERE {which} LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING key, stoker_now() AS at, created_at + make_interval(secs => :later_s) AS stored_by
), removals AS (
    INSERT INTO object_removals (prefix, is_folder, due_at)
    SELECT key, false, at FROM gone UNION ALL SELECT key, false, stored_by FROM gone WHERE stored_by > at
)
SELECT count(*) FROM gone
"""
EXPIRED_FILES = text(FILES.format(which="expires_at <= stoker_now()"))
OLD_FILES = text(FILES.format(which="job_id IS NULL AND created_at <= stoker_now() - make_interval(secs => :keep_s)"))
# Both are written in the order of their ids, near enough.
OLD_ACTS = text("""
WITH acts AS (
    DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log ORDER BY id LIMIT :limit)
      AND at <= stoker_now() - make_interval(secs => :keep_s) RETURNING id
), requests AS (
    DELETE FROM admin_requests WHERE id IN (SELECT id FROM admin_requests ORDER BY id LIMIT :limit)
      AND done_at <= stoker_now() - make_interval(secs => :keep_s) RETURNING id
)
SELECT greatest((SELECT count(*) FROM acts), (SELECT count(*) FROM requests))
""")

Take = Callable[[AsyncConnection, list[UUID]], Awaitable[list[UUID]]]
BY_AGE: dict[str, Take] = {
    "payloads": retention.remove_payloads,
    "outputs": retention.remove_outputs,
    "events": retention.remove_events,
    "delivery tries": retention.remove_tries,
}
"""What may be kept for less time than the job itself; each has a place, up to which it has been taken from all jobs."""


async def unstored(db: AsyncEngine, *, keep_s: float, limit: int) -> int:
    """Take away what was not to be stored; of how many jobs. ``limit`` of them: there may be more."""
    async with _my_turn(db) as tx:
        if tx is None:
            return 0
        found = (await tx.execute(UNSTORED, {"keep_s": keep_s, "limit": limit})).all()
        if found:
            outputs_of = [row.id for row in found if row.with_outputs]
            await retention.remove_payloads(tx, [row.id for row in found], outputs_of=outputs_of)
        return len(found)


async def expired_outputs(db: AsyncEngine, *, limit: int) -> int:
    """Take away outputs whose time has ended, those of all that the job has started too; of how many jobs."""
    async with _my_turn(db) as tx:
        if tx is None:
            return 0
        found = list((await tx.execute(EXPIRED, {"limit": limit})).scalars())
        if found:
            part, is_last = await _part(tx, "outputs", found, limit)
            await retention.remove_outputs(tx, part)
            return len(found) if is_last else len(part)
        return 0


async def by_age(db: AsyncEngine, kind: str, *, keep_s: float, limit: int) -> int:
    """Take ``kind`` of BY_AGE away from jobs that ended so long ago, and all that they started; from how many."""
    async with _my_turn(db) as tx:
        if tx is None:
            return 0
        place = (await tx.execute(PLACE, {"kind": kind})).mappings().one()
        found = (await tx.execute(PAST_PLACE, {**place, "keep_s": keep_s, "limit": limit})).all()
        if found:
            part, is_last = await _part(tx, kind, [row.id for row in found], limit)
            await BY_AGE[kind](tx, part)
            if not is_last:
                return len(part)
            reached = {"finished_at": found[-1].finished_at, "job_id": found[-1].id}
            await tx.execute(MOVE, {"kind": kind, **reached})
        return len(found)


async def old_jobs(db: AsyncEngine, *, keep_s: float, limit: int) -> int:
    """Delete jobs, children before those that started them; how many."""
    async with _my_turn(db) as tx:
        if tx is None:
            return 0
        found = list((await tx.execute(OLD_JOBS, {"keep_s": keep_s, "limit": limit})).scalars())
        return len(await retention.delete_jobs(tx, found)) if found else 0


async def expired_files(db: AsyncEngine, *, limit: int) -> int:
    """Delete uploaded files whose time has ended; how many."""
    return await _count(db, EXPIRED_FILES, limit=limit, later_s=retention.LATER_S)


async def old_files(db: AsyncEngine, *, keep_s: float, limit: int) -> int:
    """Delete files that were uploaded so long ago; how many."""
    return await _count(db, OLD_FILES, keep_s=keep_s, limit=limit, later_s=retention.LATER_S)


async def old_acts(db: AsyncEngine, *, keep_s: float, limit: int) -> int:
    """Delete old rows of the audit log, and old requests of admins that were answered; how many at most of one."""
    return await _count(db, OLD_ACTS, keep_s=keep_s, limit=limit)


@asynccontextmanager
async def _my_turn(db: AsyncEngine) -> AsyncIterator[AsyncConnection | None]:
    """A transaction, unless another replica has one: two would wait for each other's rows of the same tenants."""
    async with db.begin() as tx:
        yield tx if (await tx.execute(MY_TURN)).scalar_one() else None


async def _count(db: AsyncEngine, statement: Any, **values: Any) -> int:
    async with _my_turn(db) as tx:
        return 0 if tx is None else int((await tx.execute(statement, values)).scalar_one())


async def _part(tx: AsyncConnection, kind: str, tops: list[UUID], limit: int) -> tuple[list[UUID], bool]:
    """Of families, however large, what is to be taken next; the jobs at the top with what is left at last: is it?"""
    below = text(BELOW.format(still_has=STILL_HAS[kind]))
    found = list((await tx.execute(below, {"ids": tops, "limit": limit})).scalars())
    return (found, False) if len(found) >= limit else (found + tops, True)
