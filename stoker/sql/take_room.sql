-- Behind the rooms' locks. Counts to the limits and no further, queue by queue, and leaves word of it for the statements
-- after it in this transaction, which store nothing where there is no room. A job that the tenant made before, by its key,
-- needs none. Each LIMIT in a queue is also what keeps a plan from going through all queues to find the app's.
WITH room AS MATERIALIZED (
    SELECT a.name AS app, l."limit",
           CASE WHEN l."limit" IS NOT NULL THEN (
               SELECT count(*) FROM (
                   SELECT 1 FROM app_versions o CROSS JOIN LATERAL (
                       SELECT 1 FROM jobs j WHERE j.version_id = o.id AND j.state = 'queued' LIMIT l."limit") j
                   WHERE o.app_id = a.id
                   UNION ALL
                   SELECT 1 FROM app_versions o CROSS JOIN LATERAL (
                       SELECT 1 FROM jobs j WHERE j.version_id = o.id AND j.state = 'scheduled' LIMIT l."limit") j
                   WHERE o.app_id = a.id
                   LIMIT l."limit"
               ) waiting
           ) END AS waiting,
           CASE WHEN %(tenant_most_waiting)s::integer IS NOT NULL THEN (
               SELECT count(*) FROM (
                   SELECT 1 FROM queue_lanes q CROSS JOIN LATERAL (
                       SELECT 1 FROM jobs j
                       WHERE j.version_id = q.version_id AND j.uses_gpus = q.uses_gpus AND j.tenant_id = q.tenant_id
                         AND j.state = 'queued' LIMIT %(tenant_most_waiting)s::integer) j
                   WHERE q.tenant_id = %(tenant_id)s
                   UNION ALL
                   SELECT 1 FROM queue_lanes q CROSS JOIN LATERAL (
                       SELECT 1 FROM jobs j
                       WHERE j.version_id = q.version_id AND j.uses_gpus = q.uses_gpus AND j.tenant_id = q.tenant_id
                         AND j.state = 'scheduled' LIMIT %(tenant_most_waiting)s::integer) j
                   WHERE q.tenant_id = %(tenant_id)s
                   LIMIT %(tenant_most_waiting)s::integer
               ) waiting
           ) END AS tenant_waiting,
           EXISTS (SELECT 1 FROM jobs m
                   WHERE m.tenant_id = %(tenant_id)s AND m.idempotency_key = %(idempotency_key)s) AS is_known
    FROM app_versions v JOIN apps a ON a.id = v.app_id
    CROSS JOIN LATERAL (SELECT least(a.max_queue_length, %(most_waiting)s::integer) AS "limit") l
    WHERE v.id = %(version_id)s
)
SELECT r.app, r."limit", r.waiting, r.tenant_waiting,
       set_config('stoker.has_room', CASE WHEN r.is_known OR (
           coalesce(r.waiting < r."limit", true)
           AND coalesce(r.tenant_waiting < %(tenant_most_waiting)s::integer, true)) THEN 'yes' ELSE 'no' END, true)
           = 'yes' AS has_room
FROM room r
