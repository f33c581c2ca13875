SELECT l.job_id, l.attempt, v.app_id FROM job_leases l JOIN app_versions v ON v.id = l.version_id
WHERE l.node_id = %(node_id)s AND l.boot_id <> %(boot_id)s
