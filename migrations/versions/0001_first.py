"""The first schema: tables, lanes and their indexes, views for admins, the role that may read them.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FUNCTIONS = """
CREATE FUNCTION stoker_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT coalesce(nullif(current_setting('stoker.now', true), '')::timestamptz, now()) $$;
COMMENT ON FUNCTION stoker_now() IS 'The time that Stoker goes by: now(), unless a test has set stoker.now.';

CREATE FUNCTION stoker_is_live(state text, heartbeat_at timestamptz, lease_s float8) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT state <> 'stopped' AND heartbeat_at + make_interval(secs => lease_s) > stoker_now() $$;
COMMENT ON FUNCTION stoker_is_live IS 'Whether a node counts as alive: not stopped, and heard of within its lease time.';
"""

TABLES = """
CREATE TABLE admin_requests (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    requested_by TEXT DEFAULT current_user NOT NULL,
    requested_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    done_at TIMESTAMP WITH TIME ZONE,
    answer TEXT,
    CONSTRAINT pk_admin_requests PRIMARY KEY (id)
);

CREATE INDEX admin_requests_open ON admin_requests (id) WHERE done_at IS NULL;

CREATE TABLE apps (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    paused BOOLEAN DEFAULT false NOT NULL,
    max_running INTEGER,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_apps PRIMARY KEY (id),
    CONSTRAINT uq_apps_name UNIQUE (name)
);

CREATE TABLE audit_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    tenant_id UUID,
    key_id TEXT,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    data JSONB DEFAULT '{}' NOT NULL,
    CONSTRAINT pk_audit_log PRIMARY KEY (id)
);

CREATE TABLE nodes (
    id TEXT NOT NULL,
    boot_id UUID NOT NULL,
    hostname TEXT NOT NULL,
    state TEXT NOT NULL,
    slots INTEGER NOT NULL,
    gpus JSONB NOT NULL,
    versions UUID[] NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL,
    lease_s DOUBLE PRECISION NOT NULL,
    registered_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    heartbeat_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_nodes PRIMARY KEY (id),
    CONSTRAINT ck_nodes_state CHECK (state IN ('ready', 'draining', 'stopped'))
) WITH (fillfactor = 50);

CREATE TABLE signing_keys (
    id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    public_key BYTEA NOT NULL,
    private_key BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    retired_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_signing_keys PRIMARY KEY (id)
);

CREATE TABLE tenants (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    weight REAL DEFAULT 1 NOT NULL,
    max_running INTEGER DEFAULT 2147483647 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_tenants PRIMARY KEY (id),
    CONSTRAINT ck_tenants_weight CHECK (weight > 0),
    CONSTRAINT uq_tenants_name UNIQUE (name)
);

CREATE TABLE usage_records (
    job_id UUID NOT NULL,
    attempt INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    app_id UUID NOT NULL,
    node_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    gpus INTEGER NOT NULL,
    gpu_seconds DOUBLE PRECISION NOT NULL,
    warm BOOLEAN NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_usage_records PRIMARY KEY (job_id, attempt)
);

CREATE INDEX usage_by_time ON usage_records (ended_at);

CREATE TABLE api_keys (
    id TEXT NOT NULL,
    tenant_id UUID NOT NULL,
    secret_sha256 BYTEA NOT NULL,
    scopes TEXT[] NOT NULL,
    name TEXT DEFAULT '' NOT NULL,
    best_priority SMALLINT DEFAULT 0 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT ck_api_keys_best_priority CHECK (best_priority BETWEEN 0 AND 9),
    CONSTRAINT ck_api_keys_scopes CHECK (scopes <@ ARRAY['run', 'read', 'admin'] AND scopes <> '{}'),
    CONSTRAINT fk_api_keys_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);

CREATE TABLE app_versions (
    id UUID NOT NULL,
    app_id UUID NOT NULL,
    hash TEXT NOT NULL,
    manifest JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    published_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_app_versions PRIMARY KEY (id),
    CONSTRAINT uq_app_versions_app_id UNIQUE (app_id, hash),
    CONSTRAINT fk_app_versions_app_id FOREIGN KEY(app_id) REFERENCES apps (id)
);

CREATE TABLE files (
    id TEXT NOT NULL,
    tenant_id UUID NOT NULL,
    key TEXT NOT NULL,
    content_type TEXT NOT NULL,
    file_name TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_files PRIMARY KEY (id),
    CONSTRAINT fk_files_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_files_key UNIQUE (key)
);

CREATE INDEX files_of_tenant ON files (tenant_id);

CREATE TABLE runners (
    node_id TEXT NOT NULL,
    name TEXT NOT NULL,
    app TEXT NOT NULL,
    state TEXT NOT NULL,
    world_size INTEGER NOT NULL,
    slots INTEGER[] NOT NULL,
    pids INTEGER[] NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_runners PRIMARY KEY (node_id, name),
    CONSTRAINT fk_runners_node_id FOREIGN KEY(node_id) REFERENCES nodes (id) ON DELETE CASCADE
);

CREATE TABLE uploads (
    id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    key TEXT NOT NULL,
    content_type TEXT NOT NULL,
    file_name TEXT NOT NULL,
    multipart_id TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_uploads PRIMARY KEY (id),
    CONSTRAINT fk_uploads_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_uploads_key UNIQUE (key)
);

CREATE TABLE queue_lanes (
    version_id UUID NOT NULL,
    uses_gpus BOOLEAN NOT NULL,
    tenant_id UUID NOT NULL,
    app_id UUID NOT NULL,
    weight REAL NOT NULL,
    max_running INTEGER NOT NULL,
    paused BOOLEAN DEFAULT false NOT NULL,
    running INTEGER DEFAULT 0 NOT NULL,
    has_ready BOOLEAN DEFAULT false NOT NULL,
    prio SMALLINT DEFAULT 9 NOT NULL,
    vtime DOUBLE PRECISION DEFAULT 0 NOT NULL,
    CONSTRAINT pk_queue_lanes PRIMARY KEY (version_id, uses_gpus, tenant_id),
    CONSTRAINT ck_queue_lanes_running CHECK (running >= 0),
    CONSTRAINT ck_queue_lanes_weight CHECK (weight > 0),
    CONSTRAINT fk_queue_lanes_version_id FOREIGN KEY(version_id) REFERENCES app_versions (id),
    CONSTRAINT fk_queue_lanes_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    CONSTRAINT fk_queue_lanes_app_id FOREIGN KEY(app_id) REFERENCES apps (id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE INDEX lanes_open ON queue_lanes (version_id, uses_gpus, prio, vtime, tenant_id) WHERE has_ready AND NOT paused AND running < max_running;

CREATE INDEX lanes_open_by_vtime ON queue_lanes (app_id, vtime) WHERE has_ready AND NOT paused AND running < max_running;

CREATE TABLE jobs (
    id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    version_id UUID NOT NULL,
    uses_gpus BOOLEAN NOT NULL,
    endpoint TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    input JSONB NOT NULL,
    result JSONB,
    error JSONB,
    attempt INTEGER DEFAULT 0 NOT NULL,
    max_attempts INTEGER NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    crashes INTEGER DEFAULT 0 NOT NULL,
    avoid_node TEXT,
    avoid_until TIMESTAMP WITH TIME ZONE,
    run_timeout_s DOUBLE PRECISION NOT NULL,
    stall_timeout_s DOUBLE PRECISION,
    start_timeout_s DOUBLE PRECISION,
    start_deadline TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    available_at TIMESTAMP WITH TIME ZONE NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    cancel_requested_at TIMESTAMP WITH TIME ZONE,
    webhook_url TEXT,
    tags TEXT[] DEFAULT '{}' NOT NULL,
    idempotency_key TEXT,
    request_hash BYTEA,
    key_id TEXT,
    parent_id UUID,
    retried_from UUID,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT fk_jobs_lane FOREIGN KEY(version_id, uses_gpus, tenant_id) REFERENCES queue_lanes (version_id, uses_gpus, tenant_id),
    CONSTRAINT fk_jobs_parent_id FOREIGN KEY(parent_id) REFERENCES jobs (id),
    CONSTRAINT ck_jobs_state CHECK (state IN ('scheduled', 'queued', 'running', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT ck_jobs_kind CHECK (kind IN ('inference', 'training')),
    CONSTRAINT ck_jobs_priority CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT ck_jobs_finished CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))),
    CONSTRAINT ck_jobs_result CHECK ((result IS NOT NULL) = (state = 'succeeded')),
    CONSTRAINT ck_jobs_error CHECK ((error IS NOT NULL) = (state = 'failed')),
    CONSTRAINT ck_jobs_running CHECK (state <> 'running' OR (attempt > 0 AND started_at IS NOT NULL)),
    CONSTRAINT ck_jobs_tries CHECK (failures >= 0 AND crashes >= 0 AND failures + crashes <= attempt),
    CONSTRAINT ck_jobs_limits CHECK (max_attempts >= 1 AND run_timeout_s > 0),
    CONSTRAINT ck_jobs_idempotency CHECK ((idempotency_key IS NULL) = (request_hash IS NULL)),
    CONSTRAINT ck_jobs_avoid CHECK ((avoid_node IS NULL) = (avoid_until IS NULL))
);

CREATE INDEX jobs_children ON jobs (parent_id) WHERE parent_id IS NOT NULL;

CREATE INDEX jobs_due ON jobs (available_at) WHERE state = 'scheduled';

CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;

CREATE UNIQUE INDEX jobs_idempotency ON jobs (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE INDEX jobs_of_tenant ON jobs (tenant_id, id);

CREATE INDEX jobs_ready ON jobs (version_id, uses_gpus, tenant_id, priority, id) WHERE state = 'queued';

CREATE INDEX jobs_unstarted ON jobs (start_deadline) WHERE state IN ('scheduled', 'queued') AND attempt = 0 AND start_deadline IS NOT NULL;

CREATE TABLE job_attempts (
    job_id UUID NOT NULL,
    attempt INTEGER NOT NULL,
    node_id TEXT NOT NULL,
    boot_id UUID NOT NULL,
    runner TEXT NOT NULL,
    claimed_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT,
    error JSONB,
    gpus INTEGER DEFAULT 0 NOT NULL,
    gpu_seconds DOUBLE PRECISION DEFAULT 0 NOT NULL,
    warm BOOLEAN,
    phases JSONB DEFAULT '{}' NOT NULL,
    peak_memory_bytes BIGINT,
    CONSTRAINT pk_job_attempts PRIMARY KEY (job_id, attempt),
    CONSTRAINT ck_job_attempts_outcome CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'lease_lost', 'released')),
    CONSTRAINT ck_job_attempts_ended CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    CONSTRAINT ck_job_attempts_amounts CHECK (attempt > 0 AND gpu_seconds >= 0 AND gpus >= 0),
    CONSTRAINT fk_job_attempts_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);

CREATE TABLE job_heads (
    job_id UUID NOT NULL,
    last_seq INTEGER NOT NULL,
    progress JSONB,
    progress_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_job_heads PRIMARY KEY (job_id),
    CONSTRAINT fk_job_heads_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE TABLE job_leases (
    job_id UUID NOT NULL,
    attempt INTEGER NOT NULL,
    version_id UUID NOT NULL,
    uses_gpus BOOLEAN NOT NULL,
    tenant_id UUID NOT NULL,
    node_id TEXT NOT NULL,
    boot_id UUID NOT NULL,
    runner TEXT NOT NULL,
    counts BOOLEAN DEFAULT true NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_job_leases PRIMARY KEY (job_id),
    CONSTRAINT fk_job_leases_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE TABLE job_outputs (
    id UUID NOT NULL,
    job_id UUID NOT NULL,
    attempt INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    pointer TEXT NOT NULL,
    key TEXT NOT NULL,
    content_type TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    token TEXT NOT NULL,
    metadata JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_job_outputs PRIMARY KEY (id),
    CONSTRAINT ck_job_outputs_amounts CHECK (size_bytes >= 0 AND length(token) >= 32),
    CONSTRAINT uq_job_outputs_job_id UNIQUE (job_id, position),
    CONSTRAINT fk_job_outputs_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE,
    CONSTRAINT uq_job_outputs_token UNIQUE (token)
);

CREATE TABLE webhook_deliveries (
    id UUID NOT NULL,
    job_id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    url TEXT NOT NULL,
    state TEXT DEFAULT 'pending' NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    next_attempt_at TIMESTAMP WITH TIME ZONE,
    last_status INTEGER,
    last_error TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    delivered_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id),
    CONSTRAINT ck_webhook_deliveries_state CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT ck_webhook_deliveries_next CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT uq_webhook_deliveries_job_id UNIQUE (job_id),
    CONSTRAINT fk_webhook_deliveries_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);

CREATE INDEX deliveries_due ON webhook_deliveries (next_attempt_at) WHERE state = 'pending';

CREATE TABLE delivery_attempts (
    delivery_id UUID NOT NULL,
    attempt INTEGER NOT NULL,
    sent_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    status INTEGER,
    error TEXT,
    duration_s DOUBLE PRECISION,
    CONSTRAINT pk_delivery_attempts PRIMARY KEY (delivery_id, attempt),
    CONSTRAINT fk_delivery_attempts_delivery_id FOREIGN KEY(delivery_id) REFERENCES webhook_deliveries (id) ON DELETE CASCADE
);

CREATE TABLE job_events (
    job_id UUID NOT NULL,
    seq INTEGER NOT NULL,
    attempt INTEGER,
    kind TEXT NOT NULL,
    data JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    CONSTRAINT pk_job_events PRIMARY KEY (job_id, seq),
    CONSTRAINT ck_job_events_kind CHECK (kind IN ('state', 'log', 'output')),
    CONSTRAINT ck_job_events_seq CHECK (seq > 0),
    CONSTRAINT fk_job_events_job_id FOREIGN KEY(job_id) REFERENCES job_heads (job_id) ON DELETE CASCADE
);
"""

VIEWS = """
CREATE VIEW v_queue_depth AS
SELECT a.name AS app, left(v.hash, 12) AS version, l.uses_gpus, t.name AS tenant,
       coalesce(w.queued, 0) AS queued, coalesce(w.scheduled, 0) AS scheduled, l.running,
       extract(epoch FROM stoker_now() - w.oldest)::float8 AS oldest_wait_s,
       l.paused OR a.paused AS paused, l.max_running, l.weight,
       (SELECT count(*) FROM nodes n WHERE n.state = 'ready' AND stoker_is_live(n.state, n.heartbeat_at, n.lease_s)
           AND v.id = ANY (n.versions)) AS live_nodes
FROM queue_lanes l
JOIN app_versions v ON v.id = l.version_id
JOIN apps a ON a.id = l.app_id
JOIN tenants t ON t.id = l.tenant_id
LEFT JOIN (
    SELECT version_id, uses_gpus, tenant_id, count(*) FILTER (WHERE state = 'queued') AS queued,
           count(*) FILTER (WHERE state = 'scheduled') AS scheduled,
           min(available_at) FILTER (WHERE state = 'queued') AS oldest
    FROM jobs WHERE state = 'queued' OR state = 'scheduled' GROUP BY version_id, uses_gpus, tenant_id
) w USING (version_id, uses_gpus, tenant_id)
WHERE w.queued > 0 OR w.scheduled > 0 OR l.running > 0
ORDER BY app, version, uses_gpus, tenant;

CREATE VIEW v_jobs AS
SELECT j.id, a.name AS app, j.endpoint, j.kind, left(v.hash, 12) AS version, t.name AS tenant, j.state, j.priority,
       j.attempt, j.failures, j.crashes, j.max_attempts,
       j.created_at, j.available_at, j.started_at, j.finished_at, j.cancel_requested_at,
       extract(epoch FROM coalesce(j.started_at, j.finished_at, stoker_now()) - j.available_at)::float8 AS waited_s,
       extract(epoch FROM coalesce(j.finished_at, stoker_now()) - j.started_at)::float8 AS ran_s,
       l.node_id, extract(epoch FROM l.expires_at - stoker_now())::float8 AS lease_left_s,
       j.error ->> 'code' AS error_code, j.error ->> 'message' AS error_message,
       h.progress, h.progress_at, h.last_seq, j.tags, j.webhook_url, j.parent_id, j.retried_from
FROM jobs j
JOIN app_versions v ON v.id = j.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants t ON t.id = j.tenant_id
LEFT JOIN job_heads h ON h.job_id = j.id
LEFT JOIN job_leases l ON l.job_id = j.id;

CREATE VIEW v_attempts AS
SELECT t.job_id, t.attempt, a.name AS app, j.endpoint, n.name AS tenant, t.node_id, t.runner, t.outcome,
       t.error ->> 'code' AS error_code, t.error ->> 'message' AS error_message, t.claimed_at, t.ended_at,
       extract(epoch FROM coalesce(t.ended_at, stoker_now()) - t.claimed_at)::float8 AS duration_s,
       t.gpus, t.gpu_seconds, t.warm, t.phases, t.peak_memory_bytes
FROM job_attempts t
JOIN jobs j ON j.id = t.job_id
JOIN app_versions v ON v.id = j.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants n ON n.id = j.tenant_id;

CREATE VIEW v_queue_wait AS
SELECT a.name AS app, w.hour, w.jobs, w.p50_s, w.p95_s, w.p99_s
FROM (
    SELECT v.app_id, date_trunc('hour', j.finished_at) AS hour, count(*) AS jobs,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM j.started_at - j.available_at)::float8) AS p50_s,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM j.started_at - j.available_at)::float8) AS p95_s,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM j.started_at - j.available_at)::float8) AS p99_s
    FROM jobs j JOIN app_versions v ON v.id = j.version_id
    WHERE j.finished_at > stoker_now() - interval '7 days' AND j.started_at IS NOT NULL
    GROUP BY v.app_id, date_trunc('hour', j.finished_at)
) w JOIN apps a ON a.id = w.app_id
ORDER BY hour DESC, app;

CREATE VIEW v_throughput_hourly AS
SELECT a.name AS app, w.hour, w.state, w.jobs
FROM (
    SELECT v.app_id, date_trunc('hour', j.finished_at) AS hour, j.state, count(*) AS jobs
    FROM jobs j JOIN app_versions v ON v.id = j.version_id
    WHERE j.finished_at > stoker_now() - interval '7 days'
    GROUP BY v.app_id, date_trunc('hour', j.finished_at), j.state
) w JOIN apps a ON a.id = w.app_id
ORDER BY hour DESC, app, state;

CREATE VIEW v_gpu_seconds AS
SELECT t.name AS tenant, a.name AS app, date_trunc('day', u.ended_at) AS day, count(*) AS attempts,
       sum(u.gpu_seconds) AS gpu_seconds,
       coalesce(sum(u.gpu_seconds) FILTER (WHERE u.outcome = 'succeeded'), 0) AS useful_gpu_seconds,
       coalesce(sum(u.gpu_seconds) FILTER (WHERE u.outcome <> 'succeeded'), 0) AS wasted_gpu_seconds,
       count(*) FILTER (WHERE NOT u.warm) AS cold_starts
FROM usage_records u
JOIN tenants t ON t.id = u.tenant_id
JOIN apps a ON a.id = u.app_id
GROUP BY t.name, a.name, date_trunc('day', u.ended_at)
ORDER BY day DESC, tenant, app;

CREATE VIEW v_failures AS
SELECT a.name AS app, f.error_code, f.jobs, f.first_at, f.last_at, f.sample_job_id, s.error ->> 'message' AS sample_message
FROM (
    SELECT v.app_id, j.error ->> 'code' AS error_code, count(*) AS jobs, min(j.finished_at) AS first_at,
           max(j.finished_at) AS last_at, (array_agg(j.id ORDER BY j.finished_at DESC))[1] AS sample_job_id
    FROM jobs j JOIN app_versions v ON v.id = j.version_id
    WHERE j.finished_at > stoker_now() - interval '7 days' AND j.state = 'failed'
    GROUP BY v.app_id, j.error ->> 'code'
) f
JOIN apps a ON a.id = f.app_id
JOIN jobs s ON s.id = f.sample_job_id
ORDER BY f.jobs DESC, app, error_code;

CREATE VIEW v_nodes AS
SELECT n.id AS node_id, n.state, stoker_is_live(n.state, n.heartbeat_at, n.lease_s) AS is_live,
       extract(epoch FROM stoker_now() - n.heartbeat_at)::float8 AS heartbeat_age_s,
       n.hostname, n.slots, jsonb_array_length(n.gpus) AS gpus,
       (SELECT count(*) FROM job_leases l WHERE l.node_id = n.id) AS running,
       (SELECT coalesce(array_agg(DISTINCT a.name ORDER BY a.name), '{}') FROM app_versions v JOIN apps a ON a.id = v.app_id
         WHERE v.id = ANY (n.versions)) AS apps,
       (SELECT coalesce(jsonb_object_agg(r.name, r.state), '{}') FROM runners r WHERE r.node_id = n.id) AS runners,
       n.boot_id, n.pid, n.version, n.registered_at, n.heartbeat_at
FROM nodes n
ORDER BY n.id;

CREATE VIEW v_stuck_jobs AS
SELECT s.job_id, a.name AS app, t.name AS tenant, s.problem, s.since,
       extract(epoch FROM stoker_now() - s.since)::float8 AS for_s, s.node_id
FROM (
    SELECT l.job_id, j.version_id, j.tenant_id, 'lease ran out' AS problem, l.expires_at AS since, l.node_id
    FROM job_leases l JOIN jobs j ON j.id = l.job_id WHERE l.expires_at < stoker_now()
    UNION ALL
    SELECT l.job_id, j.version_id, j.tenant_id, 'past run_timeout', j.started_at + make_interval(secs => j.run_timeout_s), l.node_id
    FROM job_leases l JOIN jobs j ON j.id = l.job_id
    WHERE j.started_at + make_interval(secs => j.run_timeout_s) < stoker_now()
    UNION ALL
    SELECT l.job_id, j.version_id, j.tenant_id, 'cancel not carried out', j.cancel_requested_at, l.node_id
    FROM job_leases l JOIN jobs j ON j.id = l.job_id WHERE j.cancel_requested_at < stoker_now() - interval '30 seconds'
    UNION ALL
    SELECT j.id, j.version_id, j.tenant_id, 'due but not queued', j.available_at, NULL
    FROM jobs j WHERE j.state = 'scheduled' AND j.available_at < stoker_now() - interval '30 seconds'
    UNION ALL
    SELECT h.id, h.version_id, h.tenant_id, 'no live node serves it', h.available_at, NULL
    FROM queue_lanes q
    CROSS JOIN LATERAL (
        SELECT j.id, j.version_id, j.tenant_id, j.available_at FROM jobs j
        WHERE j.version_id = q.version_id AND j.uses_gpus = q.uses_gpus AND j.tenant_id = q.tenant_id AND j.state = 'queued'
        ORDER BY j.priority, j.id LIMIT 1
    ) h
    WHERE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.state = 'ready' AND stoker_is_live(n.state, n.heartbeat_at, n.lease_s)
        AND q.version_id = ANY (n.versions))
) s
JOIN app_versions v ON v.id = s.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants t ON t.id = s.tenant_id
ORDER BY s.since;

CREATE VIEW v_invariants AS
SELECT 'a running job has a lease of its attempt' AS rule, j.id AS job_id, format('attempt %s', j.attempt) AS detail
FROM jobs j WHERE j.state = 'running'
  AND NOT EXISTS (SELECT 1 FROM job_leases l WHERE l.job_id = j.id AND l.attempt = j.attempt)
UNION ALL
SELECT 'a lease belongs to a running job and its attempt', l.job_id, format('attempt %s on %s', l.attempt, l.node_id)
FROM job_leases l LEFT JOIN jobs j ON j.id = l.job_id WHERE j.state IS DISTINCT FROM 'running' OR j.attempt <> l.attempt
UNION ALL
SELECT 'a lane counts its leases', NULL,
       format('version %s, tenant %s: %s counted, %s held', q.version_id, q.tenant_id, q.running, coalesce(c.held, 0))
FROM queue_lanes q LEFT JOIN (
    SELECT version_id, uses_gpus, tenant_id, count(*) AS held FROM job_leases WHERE counts
    GROUP BY version_id, uses_gpus, tenant_id
) c USING (version_id, uses_gpus, tenant_id) WHERE q.running <> coalesce(c.held, 0)
UNION ALL
SELECT 'a lane with a ready job is awake', NULL, format('version %s, tenant %s', q.version_id, q.tenant_id)
FROM queue_lanes q WHERE NOT q.has_ready AND EXISTS (
    SELECT 1 FROM jobs j WHERE j.version_id = q.version_id AND j.uses_gpus = q.uses_gpus AND j.tenant_id = q.tenant_id
    AND j.state = 'queued')
UNION ALL
SELECT 'attempts are numbered 1, 2, 3 ... up to the job''s', j.id, format('%s of %s', coalesce(t.n, 0), j.attempt)
FROM jobs j LEFT JOIN (SELECT job_id, count(*) AS n, max(attempt) AS top FROM job_attempts GROUP BY job_id) t ON t.job_id = j.id
WHERE coalesce(t.n, 0) <> j.attempt OR coalesce(t.top, 0) <> j.attempt
UNION ALL
SELECT 'an attempt is open exactly while it holds the lease', t.job_id, format('attempt %s', t.attempt)
FROM job_attempts t LEFT JOIN job_leases l ON l.job_id = t.job_id AND l.attempt = t.attempt
WHERE (t.outcome IS NULL) <> (l.job_id IS NOT NULL)
UNION ALL
SELECT 'a job succeeds by one attempt', t.job_id, format('%s succeeded', count(*))
FROM job_attempts t JOIN jobs j ON j.id = t.job_id WHERE t.outcome = 'succeeded'
GROUP BY t.job_id, j.state HAVING count(*) <> 1 OR j.state <> 'succeeded'
UNION ALL
SELECT 'events are numbered without a gap', h.job_id, format('last_seq %s, %s rows up to %s', h.last_seq, e.n, e.top)
FROM job_heads h LEFT JOIN (SELECT job_id, count(*) AS n, max(seq) AS top FROM job_events GROUP BY job_id) e USING (job_id)
WHERE h.last_seq IS DISTINCT FROM e.n OR h.last_seq IS DISTINCT FROM e.top
UNION ALL
SELECT 'the last event of a final job, and no other, says its state', j.id, format('%s final events', e.n)
FROM jobs j JOIN job_heads h ON h.job_id = j.id
CROSS JOIN LATERAL (
    SELECT count(*) AS n, count(*) FILTER (WHERE v.seq = h.last_seq AND v.data ->> 'state' = j.state) AS last
    FROM job_events v WHERE v.job_id = j.id AND v.kind = 'state' AND v.data ->> 'state' IN ('succeeded', 'failed', 'cancelled')
) e
WHERE e.n <> (j.finished_at IS NOT NULL)::int OR e.last <> e.n
UNION ALL
SELECT 'a final job with a webhook has one delivery', j.id, format('%s deliveries', count(d.id))
FROM jobs j LEFT JOIN webhook_deliveries d ON d.job_id = j.id
GROUP BY j.id HAVING count(d.id) <> CASE WHEN j.finished_at IS NOT NULL AND j.webhook_url IS NOT NULL THEN 1 ELSE 0 END
UNION ALL
SELECT 'usage is what the attempt took', t.job_id, format('attempt %s: %s and %s', t.attempt, t.gpu_seconds, u.gpu_seconds)
FROM job_attempts t LEFT JOIN usage_records u ON u.job_id = t.job_id AND u.attempt = t.attempt
WHERE t.gpu_seconds <> coalesce(u.gpu_seconds, 0)
   OR (u.job_id IS NOT NULL AND (t.outcome IS NULL OR t.outcome = 'lease_lost' OR t.outcome <> u.outcome))
UNION ALL
SELECT 'outputs are of the attempt that succeeded', o.job_id, format('attempt %s: %s', o.attempt, o.name)
FROM job_outputs o JOIN jobs j ON j.id = o.job_id WHERE j.state <> 'succeeded' OR o.attempt <> j.attempt;
"""

ROLE = """
DO $$
BEGIN
    CREATE ROLE stoker_readonly NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role stoker_readonly was not made: CREATEROLE is not allowed; grant SELECT on the views by hand';
END $$;
DO $$
DECLARE seen text;
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_readonly') THEN
        FOREACH seen IN ARRAY ARRAY['v_queue_depth', 'v_jobs', 'v_attempts', 'v_queue_wait', 'v_throughput_hourly', 'v_gpu_seconds', 'v_failures', 'v_nodes', 'v_stuck_jobs', 'v_invariants'] LOOP
            EXECUTE format('GRANT SELECT ON %I TO stoker_readonly', seen);
        END LOOP;
    END IF;
END $$;
"""

DROP = """
DROP VIEW v_queue_depth, v_jobs, v_attempts, v_queue_wait, v_throughput_hourly, v_gpu_seconds, v_failures, v_nodes, v_stuck_jobs, v_invariants;
DROP TABLE admin_requests, apps, audit_log, nodes, signing_keys, tenants, usage_records, api_keys, app_versions, files, runners, uploads, queue_lanes, jobs, job_attempts, job_heads, job_leases, job_outputs, webhook_deliveries, delivery_attempts, job_events;
DROP FUNCTION stoker_is_live(text, timestamptz, float8);
DROP FUNCTION stoker_now();
"""


def upgrade() -> None:
    for script in (FUNCTIONS, TABLES, VIEWS, ROLE):
        run(script)


def downgrade() -> None:
    run(DROP)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
