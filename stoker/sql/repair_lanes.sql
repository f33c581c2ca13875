-- Hints and counts as they should be; a lane that somebody changed since our snapshot is left to the next tick.
WITH truth AS MATERIALIZED (
    SELECT l.version_id, l.uses_gpus, l.tenant_id, l.has_ready, l.prio, l.running, first.priority,
           coalesce(c.held, 0) AS held
    FROM queue_lanes l
    LEFT JOIN LATERAL (
        SELECT j.priority FROM jobs j
        WHERE j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus AND j.tenant_id = l.tenant_id
          AND j.state = 'queued'
        ORDER BY j.priority, j.id LIMIT 1
    ) first ON true
    LEFT JOIN (
        SELECT version_id, uses_gpus, tenant_id, count(*) AS held FROM job_leases WHERE counts GROUP BY 1, 2, 3
    ) c USING (version_id, uses_gpus, tenant_id)
    WHERE l.app_id = %(app_id)s
)
UPDATE queue_lanes l
SET prio = coalesce(t.priority, l.prio), has_ready = l.has_ready OR t.priority IS NOT NULL, running = t.held,
    vtime = CASE WHEN l.has_ready OR t.priority IS NULL THEN l.vtime ELSE greatest(l.vtime, coalesce(
        (SELECT min(o.vtime) FROM queue_lanes o
         WHERE o.app_id = l.app_id AND o.has_ready AND NOT o.paused AND o.running < o.max_running),
        (SELECT coalesce(max(o.vtime) FILTER (WHERE o.has_ready OR o.running > 0), max(o.vtime))
         FROM queue_lanes o WHERE o.app_id = l.app_id))) END
FROM truth t
WHERE l.version_id = t.version_id AND l.uses_gpus = t.uses_gpus AND l.tenant_id = t.tenant_id
  AND l.has_ready = t.has_ready AND l.prio = t.prio AND l.running = t.running
  AND (l.prio <> coalesce(t.priority, l.prio) OR (t.priority IS NOT NULL AND NOT l.has_ready) OR l.running <> t.held)
