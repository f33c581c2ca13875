-- Behind the room's lock. It counts to the limit and no further, lane by lane. No row: the tenant made this job before.
SELECT (
    SELECT count(*) FROM (
        SELECT 1 FROM queue_lanes l JOIN jobs j ON j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus
            AND j.tenant_id = l.tenant_id AND j.state = 'queued' WHERE l.tenant_id = %(tenant_id)s
        UNION ALL
        SELECT 1 FROM queue_lanes l JOIN jobs j ON j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus
            AND j.tenant_id = l.tenant_id AND j.state = 'scheduled' WHERE l.tenant_id = %(tenant_id)s
        LIMIT %(tenant_most_waiting)s::integer
    ) waiting
) AS waiting
WHERE NOT EXISTS (
    SELECT 1 FROM jobs m WHERE m.tenant_id = %(tenant_id)s AND m.idempotency_key = %(idempotency_key)s)
