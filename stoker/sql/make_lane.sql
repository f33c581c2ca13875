-- A lane that is new is taken to cost what the app's others do, until its own jobs are measured. The tenant's row is held,
-- so that a change of its weight or its cap reaches this lane too.
INSERT INTO queue_lanes (version_id, uses_gpus, tenant_id, app_id, weight, max_running, job_cost)
SELECT v.id, %(uses_gpus)s, t.id, v.app_id, t.weight, t.max_running,
       coalesce((SELECT avg(o.job_cost) FROM queue_lanes o WHERE o.app_id = v.app_id AND o.uses_gpus = %(uses_gpus)s), 1)
FROM app_versions v, tenants t
WHERE v.id = %(version_id)s AND t.id = %(tenant_id)s AND NOT EXISTS (
    SELECT 1 FROM queue_lanes l WHERE l.version_id = v.id AND l.uses_gpus = %(uses_gpus)s AND l.tenant_id = t.id)
--room AND current_setting('stoker.has_room') = 'yes'
FOR KEY SHARE OF t
ON CONFLICT DO NOTHING
