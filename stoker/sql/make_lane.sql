INSERT INTO queue_lanes (version_id, uses_gpus, tenant_id, app_id, weight, max_running)
SELECT v.id, %(uses_gpus)s, t.id, v.app_id, t.weight, t.max_running
FROM app_versions v, tenants t WHERE v.id = %(version_id)s AND t.id = %(tenant_id)s
ON CONFLICT DO NOTHING
