-- How long jobs that a node could claim have waited: the first of each open lane, so that it stays cheap however many there
-- are; of very many lanes, those whose turn is next. The conditions are the claim's.
SELECT extract(epoch FROM stoker_now() - min(first.available_at))::float8 AS waited_s
FROM (
    SELECT l.app_id, l.version_id, l.uses_gpus, l.tenant_id FROM queue_lanes l
    WHERE l.version_id = %(version_id)s AND l.uses_gpus = %(uses_gpus)s
      AND l.has_ready AND NOT l.paused AND l.running < l.max_running
    ORDER BY l.prio, l.vtime, l.tenant_id LIMIT 100
) lane
JOIN apps a ON a.id = lane.app_id
CROSS JOIN LATERAL (
    SELECT j.available_at FROM jobs j
    WHERE j.version_id = lane.version_id AND j.uses_gpus = lane.uses_gpus AND j.tenant_id = lane.tenant_id
      AND j.state = 'queued' AND (j.avoid_node IS DISTINCT FROM %(node_id)s OR j.avoid_until <= stoker_now())
      AND (j.attempt > 0 OR j.start_deadline IS NULL OR j.start_deadline > stoker_now())
    ORDER BY j.priority, j.id LIMIT 1
) first
WHERE NOT a.paused AND (a.max_running IS NULL OR a.max_running > (
    SELECT coalesce(sum(o.running), 0) FROM queue_lanes o WHERE o.app_id = a.id))
