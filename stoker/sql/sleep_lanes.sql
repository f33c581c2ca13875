-- A statement of its own: its snapshot is taken behind the locks, so it sees what was submitted until then.
UPDATE queue_lanes l SET has_ready = false
FROM unnest(%(versions)s::uuid[], %(gpus)s::boolean[], %(tenants)s::uuid[]) AS held (version_id, uses_gpus, tenant_id)
WHERE l.version_id = held.version_id AND l.uses_gpus = held.uses_gpus AND l.tenant_id = held.tenant_id
  AND NOT EXISTS (
    SELECT 1 FROM jobs j
    WHERE j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus AND j.tenant_id = l.tenant_id AND j.state = 'queued')
