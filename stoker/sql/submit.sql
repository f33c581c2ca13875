-- The reference to the lane takes a KEY SHARE lock on it, which holds the tick off until this transaction has woken it.
WITH job AS (
    INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, max_attempts,
                      run_timeout_s, stall_timeout_s, start_timeout_s, start_deadline, available_at, webhook_url, tags,
                      idempotency_key, request_hash, key_id, parent_id, depth, retried_from, store_io,
                      keep_outputs_s, no_retry)
    SELECT %(job_id)s, %(tenant_id)s, %(version_id)s, %(uses_gpus)s, %(endpoint)s, %(kind)s,
           CASE WHEN due.at > stoker_now() THEN 'scheduled' ELSE 'queued' END,
           %(priority)s, %(input)s, %(max_attempts)s, %(run_timeout_s)s, %(stall_timeout_s)s,
           %(start_timeout_s)s,
           due.at + make_interval(secs => %(start_timeout_s)s::float8), due.at, %(webhook_url)s, %(tags)s::text[],
           %(idempotency_key)s, %(request_hash)s, %(key_id)s, %(parent_id)s, %(depth)s, %(retried_from)s,
           %(store_io)s, %(keep_outputs_s)s, %(no_retry)s
    FROM (SELECT greatest(%(run_at)s::timestamptz, stoker_now()) AS at) due
    --room WHERE current_setting('stoker.has_room') = 'yes'
    ON CONFLICT (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id, state, tenant_id, version_id, uses_gpus, priority, created_at, available_at
), head AS (
    INSERT INTO job_heads (job_id, last_seq, mark) SELECT id, 1, stoker_mark() FROM job
    RETURNING mark
), event AS (
    INSERT INTO job_events (tenant_id, mark, job_id, seq, kind, data)
    SELECT j.tenant_id, h.mark, j.id, 1, 'state', jsonb_build_object('state', j.state, 'reason', 'submitted')
    FROM job j CROSS JOIN head h
)
-- What its caller is told of it, as one who reads the job is. It is not in the snapshot, so all that is counted is before it.
SELECT j.id, j.state, j.created_at, j.available_at,
       EXISTS (SELECT 1 FROM nodes n WHERE n.state = 'ready' AND stoker_is_live(n.state, n.heartbeat_at, n.lease_s)
               AND j.version_id = ANY (n.versions)) AS served,
       CASE WHEN j.state = 'queued' THEN (
           SELECT count(*) FROM (
               SELECT 1 FROM jobs o
               WHERE o.version_id = j.version_id AND o.uses_gpus = j.uses_gpus AND o.tenant_id = j.tenant_id
                 AND o.state = 'queued' AND (o.priority, o.id) < (j.priority, j.id)
               LIMIT %(counted)s
           ) before
       ) END AS position
FROM job j
