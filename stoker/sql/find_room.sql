-- Behind the room's lock. It counts to the limit and no further. No row: the tenant made this job before.
SELECT a.name AS app, least(a.max_queue_length, %(most_waiting)s::integer) AS "limit", (
    SELECT count(*) FROM (
        SELECT 1 FROM app_versions o JOIN jobs j ON j.version_id = o.id AND j.state = 'queued' WHERE o.app_id = a.id
        UNION ALL
        SELECT 1 FROM app_versions o JOIN jobs j ON j.version_id = o.id AND j.state = 'scheduled' WHERE o.app_id = a.id
        LIMIT least(a.max_queue_length, %(most_waiting)s::integer)
    ) waiting
) AS waiting
FROM app_versions v JOIN apps a ON a.id = v.app_id
WHERE v.id = %(version_id)s AND NOT EXISTS (
    SELECT 1 FROM jobs m WHERE m.tenant_id = %(tenant_id)s AND m.idempotency_key = %(idempotency_key)s)
