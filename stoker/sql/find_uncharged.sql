-- Without a lock: the running attempts that have taken much more than their lanes were charged, as far as their nodes were
-- heard of. Those whose children are waited for are not among them: only the node knows how long.
SELECT l.job_id, v.app_id, l.version_id, l.uses_gpus, l.tenant_id
FROM job_leases l JOIN job_attempts t ON t.job_id = l.job_id AND t.attempt = l.attempt
JOIN app_versions v ON v.id = l.version_id
LEFT JOIN runners r ON r.node_id = l.node_id AND r.name = l.runner
CROSS JOIN LATERAL (
    SELECT CASE WHEN l.uses_gpus THEN greatest(coalesce(r.world_size, (v.manifest ->> 'num_gpus')::int), 1) ELSE 1 END AS gpus
) g
WHERE extract(epoch FROM l.renewed_at - t.claimed_at)::float8 * g.gpus > l.charged + %(grain_s)s * g.gpus
  AND (l.uses_gpus OR NOT EXISTS (SELECT 1 FROM job_children c WHERE c.parent_id = l.job_id))
ORDER BY l.job_id LIMIT %(limit)s
