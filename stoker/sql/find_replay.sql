SELECT j.id, j.state, j.idempotency_key, j.request_hash, a.name AS queue
FROM jobs j JOIN app_versions v ON v.id = j.version_id JOIN apps a ON a.id = v.app_id
WHERE j.tenant_id = %(tenant_id)s AND j.idempotency_key = %(idempotency_key)s
