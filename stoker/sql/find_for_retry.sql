SELECT tenant_id, version_id, endpoint, input, priority, webhook_url, start_timeout_s, run_timeout_s, max_attempts, tags,
       parent_id, state
FROM jobs WHERE id = %(job_id)s AND (%(tenant_id)s::uuid IS NULL OR tenant_id = %(tenant_id)s)
