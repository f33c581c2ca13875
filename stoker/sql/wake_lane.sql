-- Touches the row only if the lane sleeps or its best priority is worse than this job's. A lane that wakes starts beside
-- the least served lane that is open: it neither jumps the queue with old credit nor pays for having been idle. Where
-- none is open it starts beside the most served that has something to do; a lane that left long ago is no measure. With a
-- job_id, only if that job was stored: a key that is sent again brings its lane nothing.
UPDATE queue_lanes l
SET prio = CASE WHEN l.has_ready THEN least(l.prio, %(priority)s) ELSE %(priority)s END,
    vtime = CASE WHEN l.has_ready THEN l.vtime ELSE greatest(l.vtime, coalesce(
        (SELECT min(o.vtime) FROM queue_lanes o
         WHERE o.app_id = l.app_id AND o.has_ready AND NOT o.paused AND o.running < o.max_running),
        (SELECT coalesce(max(o.vtime) FILTER (WHERE o.has_ready OR o.running > 0), max(o.vtime))
         FROM queue_lanes o WHERE o.app_id = l.app_id))) END,
    has_ready = true
WHERE l.version_id = %(version_id)s AND l.uses_gpus = %(uses_gpus)s AND l.tenant_id = %(tenant_id)s
  AND (NOT l.has_ready OR l.prio > %(priority)s)
  AND (%(job_id)s::uuid IS NULL OR EXISTS (SELECT 1 FROM jobs j WHERE j.id = %(job_id)s))
