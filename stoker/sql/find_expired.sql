SELECT l.job_id, l.attempt, v.app_id FROM job_leases l JOIN app_versions v ON v.id = l.version_id
WHERE l.expires_at < stoker_now() ORDER BY l.expires_at LIMIT %(limit)s
