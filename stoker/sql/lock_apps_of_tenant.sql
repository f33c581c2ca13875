-- Before the tenant's row is held, and again behind it. In one order: nobody else holds the locks of two apps.
SELECT pg_advisory_xact_lock(hashtextextended(served.app_id::text, 0))
FROM (
    SELECT DISTINCT l.app_id FROM queue_lanes l JOIN tenants t ON t.id = l.tenant_id WHERE t.name = %(name)s ORDER BY l.app_id
) served
