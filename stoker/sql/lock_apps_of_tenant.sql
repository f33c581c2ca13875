-- Behind the tenant's row. In one order: nobody else holds the locks of two apps.
SELECT pg_advisory_xact_lock(hashtextextended(served.app_id::text, 0))
FROM (SELECT DISTINCT app_id FROM queue_lanes WHERE tenant_id = %(tenant_id)s ORDER BY app_id) served
