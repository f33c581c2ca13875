-- FOR UPDATE collides with the KEY SHARE that an uncommitted submit holds by its reference, and skips that lane.
SELECT l.version_id, l.uses_gpus, l.tenant_id FROM queue_lanes l
WHERE l.app_id = %(app_id)s AND l.has_ready AND NOT EXISTS (
    SELECT 1 FROM jobs j
    WHERE j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus AND j.tenant_id = l.tenant_id AND j.state = 'queued')
ORDER BY l.version_id, l.uses_gpus, l.tenant_id FOR UPDATE OF l SKIP LOCKED
