SELECT k.id, k.tenant_id, t.name AS tenant_name, k.secret_sha256, k.scopes, k.best_priority,
       t.max_requests_per_s, t.max_waiting,
       k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > stoker_now()) AS is_valid
FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
WHERE k.id = %(key_id)s
