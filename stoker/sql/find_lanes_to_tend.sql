-- Without a lock, so that an idle system takes none: the apps with a lane that is not as it should be.
SELECT DISTINCT l.app_id
FROM queue_lanes l
LEFT JOIN LATERAL (
    SELECT j.priority FROM jobs j
    WHERE j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus AND j.tenant_id = l.tenant_id AND j.state = 'queued'
    ORDER BY j.priority, j.id LIMIT 1
) first ON true
LEFT JOIN (
    SELECT version_id, uses_gpus, tenant_id, count(*) AS held FROM job_leases WHERE counts GROUP BY 1, 2, 3
) c USING (version_id, uses_gpus, tenant_id)
WHERE l.has_ready <> (first.priority IS NOT NULL) OR (l.has_ready AND l.prio <> first.priority)
   OR l.running <> coalesce(c.held, 0)
ORDER BY l.app_id
