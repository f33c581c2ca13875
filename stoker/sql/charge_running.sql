-- Behind the app's lock, so that nothing is charged twice. A lease that is just being renewed or set waiting is left to the
-- next tick: no lock on a lease is waited for. What is charged here is part of what the end finds charged and corrects.
WITH taken AS MATERIALIZED (
    SELECT l.job_id, l.attempt, l.charged AS before,
           extract(epoch FROM l.renewed_at - t.claimed_at)::float8
           * CASE WHEN l.uses_gpus THEN greatest(coalesce(r.world_size, (v.manifest ->> 'num_gpus')::int), 1) ELSE 1 END AS total
    FROM job_leases l JOIN job_attempts t ON t.job_id = l.job_id AND t.attempt = l.attempt
    JOIN app_versions v ON v.id = l.version_id
    LEFT JOIN runners r ON r.node_id = l.node_id AND r.name = l.runner
    WHERE l.job_id = ANY (%(job_ids)s::uuid[])
    ORDER BY l.job_id FOR NO KEY UPDATE OF l SKIP LOCKED
), charged AS (
    UPDATE job_leases l SET charged = t.total
    FROM taken t WHERE l.job_id = t.job_id AND l.attempt = t.attempt AND t.total > t.before
    RETURNING l.version_id, l.uses_gpus, l.tenant_id, t.total - t.before AS owed
)
UPDATE queue_lanes q SET vtime = q.vtime + o.owed / q.weight
FROM (SELECT version_id, uses_gpus, tenant_id, sum(owed) AS owed FROM charged GROUP BY 1, 2, 3) o
WHERE q.version_id = o.version_id AND q.uses_gpus = o.uses_gpus AND q.tenant_id = o.tenant_id
