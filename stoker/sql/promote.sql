-- Behind the app's lock, so that the lanes can be woken by the next statements.
WITH job AS (
    UPDATE jobs j SET state = 'queued'
    WHERE j.id = ANY (%(job_ids)s) AND j.state = 'scheduled' AND j.available_at <= stoker_now()
    RETURNING j.id, j.state, j.version_id, j.uses_gpus, j.tenant_id, j.priority
), head AS (
    UPDATE job_heads h SET last_seq = h.last_seq + 1, mark = greatest(h.mark, stoker_mark())
    FROM job j WHERE h.job_id = j.id
    RETURNING h.job_id, h.last_seq, h.mark
), event AS (
    INSERT INTO job_events (tenant_id, mark, job_id, seq, kind, data)
    SELECT j.tenant_id, h.mark, j.id, h.last_seq, 'state', jsonb_build_object('state', j.state, 'reason', 'due')
    FROM job j JOIN head h ON h.job_id = j.id
)
SELECT version_id, uses_gpus, tenant_id, min(priority) AS priority FROM job
GROUP BY version_id, uses_gpus, tenant_id ORDER BY version_id, uses_gpus, tenant_id
