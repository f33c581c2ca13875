"""Retention: what is taken away from final jobs, and what goes with it. Never from one that may still run.

Each function is a part of a transaction of its caller's: ``stoker.sweeps`` chooses jobs by their time, the API by a
caller's wish. Usage is nobody's to take: it outlives the job's rows. Objects go by ``stoker.removals``.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Whatever is among them and not final is left as it is. What an app has said about an output is among the event's data.
STRIP = text("""
WITH gone AS (
    UPDATE jobs SET input = 'null', payload_removed_at = stoker_now(),
                    result = CASE WHEN result IS NOT NULL THEN 'null'::jsonb END
    WHERE id = ANY(:ids) AND finished_at IS NOT NULL AND payload_removed_at IS NULL RETURNING id
), said AS (
    UPDATE job_events e
    SET data = CASE e.kind WHEN 'state' THEN e.data - 'result' ELSE (
        SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(e.data)
        WHERE key IN ('name', 'url', 'content_type', 'size_bytes', 'sha256', 'attempt')) END
    FROM gone g WHERE e.job_id = g.id AND (e.kind = 'output' OR e.kind = 'state' AND e.data ? 'result')
), told AS (
    UPDATE job_heads h SET progress = NULL, progress_at = NULL FROM gone g
    WHERE h.job_id = g.id AND h.progress IS NOT NULL
), described AS (
    UPDATE job_outputs o SET metadata = '{}' FROM gone g WHERE o.job_id = g.id
), passed_on AS (
    DELETE FROM files f USING gone g WHERE f.job_id = g.id
)
SELECT id FROM gone
""")
CLOSE = text("""
UPDATE jobs SET outputs_removed_at = stoker_now()
WHERE id = ANY(:ids) AND finished_at IS NOT NULL AND outputs_removed_at IS NULL RETURNING id
""")
# After the rows have been changed: what is still referred to is kept.
REMOVE_OBJECTS = text("""
INSERT INTO object_removals (prefix, is_folder, due_at, keep)
SELECT j.tenant_id || '/' || j.id || '/', true, stoker_now() + make_interval(secs => s.after_s),
       ARRAY(SELECT j.tenant_id || '/' || j.id || '/' || t.attempt || '/log.txt'
             FROM job_attempts t WHERE t.job_id = j.id AND t.log_file IS NOT NULL)
       || ARRAY(SELECT o.key FROM job_outputs o WHERE o.job_id = j.id AND j.outputs_removed_at IS NULL)
       || ARRAY(SELECT f.key FROM files f WHERE f.job_id = j.id)
FROM jobs j CROSS JOIN unnest(:looks_s ::float8[]) AS s (after_s) WHERE j.id = ANY(:ids)
""")
# Who comes back with a place before what is deleted must hear of it.
DELETE = text("""
WITH gone AS (
    DELETE FROM jobs WHERE id = ANY(:ids) AND finished_at IS NOT NULL RETURNING id, tenant_id
), passed_on AS (
    DELETE FROM files f USING gone g WHERE f.job_id = g.id
), removals AS (
    INSERT INTO object_removals (prefix, is_folder, due_at)
    SELECT g.tenant_id || '/' || g.id || '/', true, stoker_now() + make_interval(secs => s.after_s)
    FROM gone g CROSS JOIN unnest(:looks_s ::float8[]) AS s (after_s)
), pruned AS (
    UPDATE tenants t SET events_pruned = greatest(t.events_pruned, p.mark)
    FROM (
        SELECT g.tenant_id, max(h.mark) AS mark FROM gone g JOIN job_heads h ON h.job_id = g.id GROUP BY g.tenant_id
    ) p WHERE t.id = p.tenant_id
)
SELECT id FROM gone
""")
# The last one stays: whoever follows the job is told that, and how, it has ended.
DELETE_EVENTS = text("""
WITH gone AS (
    DELETE FROM job_events e USING job_heads h, jobs j
    WHERE e.job_id = ANY(:ids) AND h.job_id = e.job_id AND j.id = e.job_id AND j.finished_at IS NOT NULL
      AND e.seq < h.last_seq
    RETURNING e.job_id, e.tenant_id, e.mark
), pruned AS (
    UPDATE tenants t SET events_pruned = greatest(t.events_pruned, p.mark)
    FROM (SELECT tenant_id, max(mark) AS mark FROM gone GROUP BY tenant_id) p
    WHERE t.id = p.tenant_id AND p.mark IS NOT NULL
)
SELECT DISTINCT job_id FROM gone
""")
DELETE_TRIES = text("""
DELETE FROM delivery_attempts t USING webhook_deliveries d
WHERE d.job_id = ANY(:ids) AND t.delivery_id = d.id AND d.state <> 'pending'
""")
LATER_S = 2 * 3600.0
"""By then an attempt that has lost its lease has stopped, as has a presigned upload. What these store has no row: where
they may still run there is another look.
"""


async def remove_payloads(
    tx: AsyncConnection, job_ids: Collection[UUID], *, outputs_of: Collection[UUID] = (), is_recent: bool = False
) -> list[UUID]:
    """Take away inputs, results and what else repeats them, and outputs; the jobs that still had any of it.

    ``is_recent``: attempts may still store.
    """
    closed = set((await tx.execute(CLOSE, {"ids": list(outputs_of)})).scalars()) if outputs_of else set()
    gone = closed.union((await tx.execute(STRIP, {"ids": list(job_ids)})).scalars())
    await _remove_objects(tx, list(gone), is_recent=is_recent)
    return list(gone)


async def remove_outputs(tx: AsyncConnection, job_ids: Collection[UUID]) -> list[UUID]:
    """Have outputs' links lead nowhere and their objects deleted; those jobs that still had theirs."""
    gone = list((await tx.execute(CLOSE, {"ids": list(job_ids)})).scalars())
    await _remove_objects(tx, gone)
    return gone


async def remove_events(tx: AsyncConnection, job_ids: Collection[UUID]) -> list[UUID]:
    """Delete all events but the last."""
    return list((await tx.execute(DELETE_EVENTS, {"ids": list(job_ids)})).scalars())


async def remove_tries(tx: AsyncConnection, job_ids: Collection[UUID]) -> list[UUID]:
    """Delete the log of what their webhooks were sent, where nothing is owed any more."""
    await tx.execute(DELETE_TRIES, {"ids": list(job_ids)})
    return list(job_ids)


async def delete_jobs(tx: AsyncConnection, job_ids: Collection[UUID], *, is_recent: bool = False) -> list[UUID]:
    """Delete jobs with all that is theirs; no child of theirs may be left. ``is_recent``: attempts may still store."""
    return list((await tx.execute(DELETE, {"ids": list(job_ids), "looks_s": _looks_s(is_recent)})).scalars())


async def _remove_objects(tx: AsyncConnection, job_ids: list[UUID], *, is_recent: bool = False) -> None:
    if job_ids:
        await tx.execute(REMOVE_OBJECTS, {"ids": job_ids, "looks_s": _looks_s(is_recent)})


def _looks_s(is_recent: bool) -> list[float]:
    return [0.0, LATER_S] if is_recent else [0.0]
