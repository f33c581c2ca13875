-- One statement for all of a node's leases, locked in one order. It also says that the node lives, and keeps the newest
-- progress of its jobs. A lease past its end that nobody has taken back is renewed too: nobody else holds the job.
WITH node AS (
    UPDATE nodes SET heartbeat_at = stoker_now() WHERE id = %(node_id)s AND boot_id = %(boot_id)s
), held AS MATERIALIZED (
    SELECT l.job_id, l.attempt FROM job_leases l
    JOIN unnest(%(job_ids)s::uuid[], %(attempts)s::int[]) AS asked (job_id, attempt) USING (job_id, attempt)
    WHERE l.node_id = %(node_id)s AND l.boot_id = %(boot_id)s
    ORDER BY l.job_id FOR NO KEY UPDATE OF l
), kept AS (
    UPDATE job_leases l SET renewed_at = stoker_now(), expires_at = stoker_now() + make_interval(secs => %(lease_s)s)
    FROM held h WHERE l.job_id = h.job_id AND l.attempt = h.attempt
    RETURNING l.job_id, l.attempt
), said AS (
    UPDATE job_heads h SET progress = p.data, progress_at = stoker_now()
    FROM kept k JOIN unnest(%(progress_ids)s::uuid[], %(progress)s::jsonb[]) AS p (job_id, data) ON p.job_id = k.job_id
    WHERE h.job_id = k.job_id
)
SELECT k.job_id, k.attempt, true AS is_asked, j.cancel_requested_at IS NOT NULL AS cancel_asked
FROM kept k JOIN jobs j ON j.id = k.job_id
UNION ALL
SELECT l.job_id, l.attempt, false, false FROM job_leases l
WHERE l.node_id = %(node_id)s AND l.boot_id = %(boot_id)s
  AND (l.job_id, l.attempt) NOT IN (SELECT * FROM unnest(%(job_ids)s::uuid[], %(attempts)s::int[]))
