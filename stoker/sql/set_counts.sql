-- Whether a lease counts as running for the caps. The lane's count follows in the same statement, from the lease that
-- was changed: nothing is counted twice, whoever asks twice.
WITH held AS (
    SELECT job_id, counts, version_id, uses_gpus, tenant_id FROM job_leases
    WHERE job_id = %(job_id)s AND attempt = %(attempt)s FOR NO KEY UPDATE
), changed AS (
    UPDATE job_leases l SET counts = %(counts)s FROM held h WHERE l.job_id = h.job_id AND h.counts <> %(counts)s
    RETURNING l.version_id, l.uses_gpus, l.tenant_id
), counted AS (
    UPDATE queue_lanes q SET running = q.running + CASE WHEN %(counts)s THEN 1 ELSE -1 END
    FROM changed c
    WHERE q.version_id = c.version_id AND q.uses_gpus = c.uses_gpus AND q.tenant_id = c.tenant_id
)
SELECT q.max_running < %(no_cap)s OR a.max_running IS NOT NULL AS is_capped
FROM held h JOIN queue_lanes q USING (version_id, uses_gpus, tenant_id) JOIN apps a ON a.id = q.app_id
