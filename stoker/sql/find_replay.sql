SELECT id, state, request_hash FROM jobs WHERE tenant_id = %(tenant_id)s AND idempotency_key = %(idempotency_key)s
