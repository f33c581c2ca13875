-- The one way out of 'running', behind the app's lock. Everything is driven from the fenced rows: a part that was not
-- joined to them would still run for an attempt that has lost its lease.
WITH exit AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(exits)s) AS x (
        job_id uuid, attempt int, state text, is_final boolean, outcome text, reason text, result jsonb, error jsonb,
        failed int, crashed int, pause_s float8, avoid_node text, avoid_s float8, delivery_id uuid,
        usage jsonb, outputs jsonb)
), job AS (
    UPDATE jobs j
    SET state = x.state,
        result = x.result,
        error = CASE WHEN x.state = 'failed' THEN x.error END,
        failures = j.failures + x.failed,
        crashes = j.crashes + x.crashed,
        available_at = CASE WHEN x.is_final THEN j.available_at
                            ELSE stoker_now() + make_interval(secs => x.pause_s) END,
        started_at = CASE WHEN x.is_final THEN j.started_at END,
        finished_at = CASE WHEN x.is_final THEN stoker_now() END,
        outputs_expire_at = CASE WHEN x.is_final AND j.parent_id IS NULL
                                 THEN stoker_now() + make_interval(secs => j.keep_outputs_s) END,
        avoid_node = CASE WHEN other.lives THEN x.avoid_node END,
        avoid_until = CASE WHEN other.lives THEN stoker_now() + make_interval(secs => x.avoid_s) END
    FROM exit x
    JOIN job_leases l ON l.job_id = x.job_id AND l.attempt = x.attempt
    CROSS JOIN LATERAL (
        SELECT x.avoid_node IS NOT NULL AND EXISTS (
            SELECT 1 FROM nodes n
            WHERE n.id <> x.avoid_node AND n.state = 'ready' AND stoker_is_live(n.state, n.heartbeat_at, n.lease_s)
              AND l.version_id = ANY (n.versions)) AS lives
    ) other
    WHERE j.id = x.job_id AND j.attempt = x.attempt AND j.state = 'running'
    RETURNING j.id, j.attempt, j.state, j.version_id, j.uses_gpus, j.tenant_id, j.priority, j.webhook_url,
              x.is_final, x.outcome, x.reason, x.result, x.error, x.delivery_id, x.usage, x.outputs
), gone AS (
    DELETE FROM job_leases l USING job j WHERE l.job_id = j.id AND l.attempt = j.attempt
    RETURNING l.job_id, l.version_id, l.uses_gpus, l.tenant_id, l.node_id, l.runner, l.renewed_at, l.counts,
              l.charged
), head AS (
    UPDATE job_heads h SET last_seq = h.last_seq + 1, mark = greatest(h.mark, stoker_mark())
    FROM gone g WHERE h.job_id = g.job_id
    RETURNING h.job_id, h.last_seq, h.mark
), event AS (
    INSERT INTO job_events (tenant_id, mark, job_id, seq, attempt, kind, data)
    SELECT j.tenant_id, h.mark, j.id, h.last_seq, j.attempt, 'state',
           jsonb_build_object('state', j.state, 'attempt', j.attempt, 'reason', j.reason)
           || CASE WHEN j.error IS NULL OR j.state = 'cancelled' THEN '{}' ELSE jsonb_build_object('error', j.error) END
           || CASE WHEN j.result IS NULL THEN '{}' ELSE jsonb_build_object('result', j.result) END
    FROM job j JOIN head h ON h.job_id = j.id
), unsaid AS (
    -- Where its node does not say what the attempt took, the runner was held from the claim until the node was last heard of.
    SELECT j.id, greatest(extract(epoch FROM g.renewed_at - t.claimed_at)::float8, 0) AS held_s,
           CASE WHEN j.uses_gpus THEN coalesce(r.world_size, (v.manifest ->> 'num_gpus')::int, 0) ELSE 0 END AS gpus
    FROM job j JOIN gone g ON g.job_id = j.id JOIN job_attempts t ON t.job_id = j.id AND t.attempt = j.attempt
    JOIN app_versions v ON v.id = j.version_id
    LEFT JOIN runners r ON r.node_id = g.node_id AND r.name = g.runner
    WHERE j.usage IS NULL
), tried AS (
    UPDATE job_attempts t
    SET ended_at = stoker_now(), outcome = j.outcome, error = j.error, warm = u.warm,
        gpus = coalesce(u.gpus, n.gpus, 0), gpu_seconds = coalesce(u.gpu_seconds, n.gpus * n.held_s, 0),
        -- What a node does not measure is the rest: handing the job over, its inputs, recording its end.
        phases = t.phases || CASE WHEN u.phases IS NULL THEN jsonb_build_object('held', n.held_s)
                                  ELSE u.phases || jsonb_build_object('claimed', greatest(0, m.attempt_s - m.measured_s)) END,
        peak_memory_bytes = u.peak_memory_bytes
    FROM job j LEFT JOIN unsaid n ON n.id = j.id
    CROSS JOIN LATERAL jsonb_to_record(coalesce(j.usage, '{}')) AS u (
        gpus int, gpu_seconds float8, warm boolean, phases jsonb, peak_memory_bytes bigint)
    JOIN job_attempts c ON c.job_id = j.id AND c.attempt = j.attempt
    CROSS JOIN LATERAL (
        SELECT extract(epoch FROM stoker_now() - c.claimed_at)::float8 AS attempt_s,
               (SELECT coalesce(sum(p.value::text::float8), 0) FROM jsonb_each(u.phases) p) AS measured_s
    ) m
    WHERE t.job_id = j.id AND t.attempt = j.attempt
    RETURNING t.job_id, t.attempt, t.node_id, t.claimed_at, t.outcome, t.gpus, t.gpu_seconds, t.warm, t.phases,
              t.peak_memory_bytes
), freed AS (
    -- The claim charged the lane with a guess; what was measured takes its place, and makes the next guess better, unless
    -- the job was given back half done. An attempt that its node did not measure has cost what was guessed.
    UPDATE queue_lanes q
    SET running = q.running - g.n, vtime = q.vtime + g.owed / q.weight,
        job_cost = coalesce(0.75 * q.job_cost + 0.25 * g.took, q.job_cost)
    FROM (
        SELECT o.version_id, o.uses_gpus, o.tenant_id, count(*) FILTER (WHERE o.counts) AS n,
               avg(m.took) FILTER (WHERE t.outcome <> 'released') AS took,
               coalesce(sum(m.took - o.charged), 0) AS owed
        FROM gone o JOIN job j ON j.id = o.job_id JOIN tried t ON t.job_id = o.job_id
        CROSS JOIN LATERAL (
            -- Seconds where no GPU was used, without those of waiting for other apps' jobs, which cost their own lanes, or for
            -- the seat. No job is free: a lane whose jobs cost nothing would always be next.
            SELECT CASE
                WHEN j.usage IS NULL THEN NULL
                WHEN t.gpus > 0 THEN greatest(t.gpu_seconds, 0.01)
                ELSE greatest(extract(epoch FROM stoker_now() - t.claimed_at)::float8
                              - coalesce((t.phases ->> 'children')::float8, 0)
                              - coalesce((t.phases ->> 'ahead')::float8, 0), 0.01) END AS took
        ) m
        GROUP BY 1, 2, 3
    ) g
    WHERE q.version_id = g.version_id AND q.uses_gpus = g.uses_gpus AND q.tenant_id = g.tenant_id
), used AS (
    INSERT INTO usage_records (job_id, attempt, tenant_id, app_id, node_id, outcome, gpus, gpu_seconds, warm, started_at,
                               phases, peak_memory_bytes)
    SELECT t.job_id, t.attempt, j.tenant_id, v.app_id, t.node_id, t.outcome, t.gpus, t.gpu_seconds, t.warm, t.claimed_at,
           t.phases, t.peak_memory_bytes
    FROM tried t JOIN job j ON j.id = t.job_id JOIN app_versions v ON v.id = j.version_id
), stored AS (
    INSERT INTO job_outputs (id, job_id, attempt, position, name, pointer, key, content_type, size_bytes, sha256, token,
                             metadata)
    SELECT o.id, j.id, j.attempt, o.position, o.name, o.pointer, o.key, o.content_type, o.size_bytes, o.sha256, o.token,
           o.metadata
    FROM job j CROSS JOIN LATERAL jsonb_to_recordset(j.outputs) AS o (
        id uuid, position int, name text, pointer text, key text, content_type text, size_bytes bigint, sha256 text, token text,
        metadata jsonb)
    WHERE j.state = 'succeeded'
), owed AS (
    INSERT INTO webhook_deliveries (id, job_id, tenant_id, url, next_attempt_at)
    SELECT j.delivery_id, j.id, j.tenant_id, j.webhook_url, stoker_now() FROM job j
    WHERE j.is_final AND j.webhook_url IS NOT NULL
)
SELECT j.id AS job_id, j.state, h.last_seq AS seq, a.name AS queue, j.version_id, j.uses_gpus, j.tenant_id, j.priority
FROM job j JOIN head h ON h.job_id = j.id
JOIN app_versions v ON v.id = j.version_id JOIN apps a ON a.id = v.app_id
ORDER BY j.id
