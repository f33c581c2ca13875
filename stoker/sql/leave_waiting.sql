-- The one way out of 'scheduled' and 'queued' that is not a claim or a promotion, behind the app's lock.
WITH exit AS (
    SELECT * FROM unnest(%(job_ids)s::uuid[], %(delivery_ids)s::uuid[]) AS x (job_id, delivery_id)
), job AS (
    UPDATE jobs j
    SET state = %(state)s, error = %(error)s, finished_at = stoker_now(), avoid_node = NULL, avoid_until = NULL,
        outputs_expire_at = CASE WHEN j.parent_id IS NULL
                                 THEN stoker_now() + make_interval(secs => j.keep_outputs_s) END,
        cancel_requested_at = CASE WHEN %(state)s = 'cancelled' THEN stoker_now() END
    FROM exit x
    WHERE j.id = x.job_id AND j.state IN ('scheduled', 'queued')
    RETURNING j.id, j.state, j.attempt, j.tenant_id, j.version_id, j.webhook_url, j.error, x.delivery_id
), head AS (
    UPDATE job_heads h SET last_seq = h.last_seq + 1, mark = greatest(h.mark, stoker_mark())
    FROM job j WHERE h.job_id = j.id
    RETURNING h.job_id, h.last_seq, h.mark
), event AS (
    INSERT INTO job_events (tenant_id, mark, job_id, seq, kind, data)
    SELECT j.tenant_id, h.mark, j.id, h.last_seq, 'state',
           jsonb_build_object('state', j.state, 'reason', %(reason)s::text)
           || CASE WHEN j.error IS NULL THEN '{}' ELSE jsonb_build_object('error', j.error) END
    FROM job j JOIN head h ON h.job_id = j.id
), owed AS (
    INSERT INTO webhook_deliveries (id, job_id, tenant_id, url, next_attempt_at)
    SELECT j.delivery_id, j.id, j.tenant_id, j.webhook_url, stoker_now() FROM job j WHERE j.webhook_url IS NOT NULL
)
SELECT j.id AS job_id, j.state, h.last_seq AS seq, a.name AS queue, j.tenant_id
FROM job j JOIN head h ON h.job_id = j.id
JOIN app_versions v ON v.id = j.version_id JOIN apps a ON a.id = v.app_id
ORDER BY j.id
