-- Behind the app's lock. The best open lane (highest priority waiting, then least served), and that lane's first job. Each
-- probe has its ORDER BY: without it a plan may walk finished rows. Sent together with the end of another attempt, it takes
-- something only if this very transaction has ended that. Lines behind --below are of "claim+below" alone, which takes what
-- is so many calls deep at least, the deepest first: one probe of jobs_below for each open lane, however long the queues.
WITH lane AS MATERIALIZED (
    SELECT best.*
    FROM unnest(%(versions)s::uuid[], %(gpus)s::boolean[]) AS queue (version_id, uses_gpus)
    CROSS JOIN LATERAL (
        SELECT l.app_id, l.version_id, l.uses_gpus, l.tenant_id, l.prio, l.vtime, l.job_cost, l.max_running
        FROM queue_lanes l
        CROSS JOIN LATERAL (
            SELECT 1 FROM jobs j
            WHERE j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus AND j.tenant_id = l.tenant_id
              AND j.state = 'queued' AND (j.avoid_node IS DISTINCT FROM %(node_id)s OR j.avoid_until <= stoker_now())
              AND (j.attempt > 0 OR j.start_deadline IS NULL OR j.start_deadline > stoker_now())
              --below AND j.depth > 0 AND j.depth >= %(least_depth)s
            ORDER BY
              --below j.depth DESC,
              j.priority, j.id LIMIT 1
        ) first
        WHERE l.version_id = queue.version_id AND l.uses_gpus = queue.uses_gpus
          AND l.has_ready AND NOT l.paused AND l.running < l.max_running
        ORDER BY l.prio, l.vtime, l.tenant_id LIMIT 1
    ) best
    JOIN apps a ON a.id = best.app_id
    WHERE NOT a.paused AND (a.max_running IS NULL OR a.max_running > (
        SELECT coalesce(sum(o.running), 0) FROM queue_lanes o WHERE o.app_id = a.id AND o.running > 0))
      AND (%(after_job)s::uuid IS NULL OR EXISTS (
        SELECT 1 FROM job_attempts t WHERE t.job_id = %(after_job)s AND t.attempt = %(after_attempt)s::int
          AND t.xmin = pg_current_xact_id()::xid))
    ORDER BY best.prio, best.vtime, best.tenant_id LIMIT 1
), chosen AS MATERIALIZED (
    SELECT j.id FROM lane l
    CROSS JOIN LATERAL (
        SELECT id FROM jobs j
        WHERE j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus AND j.tenant_id = l.tenant_id
          AND j.state = 'queued' AND (j.avoid_node IS DISTINCT FROM %(node_id)s OR j.avoid_until <= stoker_now())
          AND (j.attempt > 0 OR j.start_deadline IS NULL OR j.start_deadline > stoker_now())
          --below AND j.depth > 0 AND j.depth >= %(least_depth)s
        ORDER BY
          --below j.depth DESC,
          j.priority, j.id LIMIT 1 FOR NO KEY UPDATE
    ) j
), following AS MATERIALIZED (
    SELECT n.priority FROM lane l CROSS JOIN chosen c
    CROSS JOIN LATERAL (
        SELECT j.priority FROM jobs j
        WHERE j.version_id = l.version_id AND j.uses_gpus = l.uses_gpus AND j.tenant_id = l.tenant_id
          AND j.state = 'queued' AND j.id <> c.id
        ORDER BY j.priority, j.id LIMIT 1
    ) n
), job AS (
    UPDATE jobs j
    SET state = 'running', attempt = j.attempt + 1, started_at = stoker_now(), avoid_node = NULL, avoid_until = NULL
    FROM chosen c WHERE j.id = c.id AND j.state = 'queued'
    RETURNING j.*
), served AS (
    -- Charged with what its jobs took of late; the attempt's end puts that right. If somebody woke the lane for a better
    -- priority since our snapshot, that one stands.
    UPDATE queue_lanes q
    SET running = q.running + 1, vtime = q.vtime + l.job_cost / q.weight,
        prio = CASE WHEN q.prio = l.prio THEN coalesce((SELECT priority FROM following), q.prio) ELSE q.prio END
    FROM lane l, job j
    WHERE q.version_id = j.version_id AND q.uses_gpus = j.uses_gpus AND q.tenant_id = j.tenant_id
), attempt AS (
    INSERT INTO job_attempts (job_id, attempt, node_id, boot_id, runner, phases)
    SELECT id, attempt, %(node_id)s, %(boot_id)s, %(runner)s,
           jsonb_build_object('queued', greatest(extract(epoch FROM stoker_now() - available_at)::float8, 0))
    FROM job
), lease AS (
    INSERT INTO job_leases (job_id, attempt, version_id, uses_gpus, tenant_id, node_id, boot_id, runner, charged, expires_at)
    SELECT j.id, j.attempt, j.version_id, j.uses_gpus, j.tenant_id, %(node_id)s, %(boot_id)s, %(runner)s, l.job_cost,
           stoker_now() + make_interval(secs => %(lease_s)s)
    FROM job j, lane l
), head AS (
    UPDATE job_heads h
    SET last_seq = h.last_seq + 1, mark = greatest(h.mark, stoker_mark()), progress = NULL, progress_at = NULL
    FROM job j WHERE h.job_id = j.id
    RETURNING h.job_id, h.last_seq, h.mark
), event AS (
    INSERT INTO job_events (tenant_id, mark, job_id, seq, attempt, kind, data)
    SELECT j.tenant_id, h.mark, j.id, h.last_seq, j.attempt, 'state',
           jsonb_build_object('state', j.state, 'attempt', j.attempt, 'reason', 'claimed', 'node', %(node_id)s::text)
    FROM job j JOIN head h ON h.job_id = j.id
)
SELECT j.id AS job_id, j.attempt, j.tenant_id, a.name AS app, j.version_id, j.endpoint, j.kind, j.uses_gpus, j.input,
       h.last_seq AS seq, j.run_timeout_s, j.stall_timeout_s, j.max_attempts, j.created_at, j.available_at,
       l.max_running < 2147483647 OR a.max_running IS NOT NULL AS is_capped
FROM job j JOIN head h ON h.job_id = j.id JOIN lane l ON true JOIN apps a ON a.id = l.app_id
