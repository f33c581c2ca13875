-- Behind the app's lock. What was asked for already stays as it is.
WITH asked AS (
    UPDATE jobs SET cancel_requested_at = stoker_now()
    WHERE id = ANY (%(job_ids)s::uuid[]) AND state = 'running' AND cancel_requested_at IS NULL
    RETURNING id, tenant_id, version_id, state
)
SELECT j.id AS job_id, j.tenant_id, a.name AS queue, j.state, l.node_id, h.last_seq AS seq
FROM asked j JOIN job_leases l ON l.job_id = j.id JOIN job_heads h ON h.job_id = j.id
JOIN app_versions v ON v.id = j.version_id JOIN apps a ON a.id = v.app_id
