-- A child that is retried by hand is nobody's: its parent, if it is still there, has heard of its end.
SELECT tenant_id, version_id, endpoint, input, priority, webhook_url, start_timeout_s, run_timeout_s, max_attempts, tags,
       store_io, keep_outputs_s, no_retry, payload_removed_at IS NOT NULL AS is_removed, state
FROM jobs WHERE id = %(job_id)s AND (%(tenant_id)s::uuid IS NULL OR tenant_id = %(tenant_id)s)
