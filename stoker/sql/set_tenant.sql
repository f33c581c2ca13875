-- Behind the tenant's row and the locks of its apps: the tenant and all its lanes, from their next claim on.
WITH tenant AS (
    UPDATE tenants SET weight = %(weight)s, max_running = %(max_running)s,
                       max_requests_per_s = %(max_requests_per_s)s, max_waiting = %(max_waiting)s
    WHERE id = %(tenant_id)s
), audit AS (
    INSERT INTO audit_log (tenant_id, key_id, about_tenant, action, target, data)
    VALUES (%(by_tenant)s, %(by_key)s, %(tenant_id)s, 'tenant.set', %(name)s, jsonb_build_object(
        'weight', %(weight)s::real, 'max_running', %(max_running)s::int,
        'max_requests_per_s', %(max_requests_per_s)s::real, 'max_waiting', %(max_waiting)s::int))
)
UPDATE queue_lanes SET weight = %(weight)s, max_running = %(max_running)s WHERE tenant_id = %(tenant_id)s
