-- Behind the tenant's row and the locks of its apps: the tenant and all its lanes, from their next claim on.
WITH tenant AS (
    UPDATE tenants SET weight = %(weight)s, max_running = %(max_running)s WHERE id = %(tenant_id)s
), audit AS (
    INSERT INTO audit_log (tenant_id, key_id, action, target, data)
    VALUES (%(by_tenant)s, %(by_key)s, 'tenant.set', %(name)s,
            jsonb_build_object('weight', %(weight)s::real, 'max_running', %(max_running)s::int))
)
UPDATE queue_lanes SET weight = %(weight)s, max_running = %(max_running)s WHERE tenant_id = %(tenant_id)s
