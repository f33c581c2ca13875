"""Quicker views of long queues.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

UP = """
CREATE OR REPLACE VIEW v_queue_depth AS
WITH served AS MATERIALIZED (
    SELECT v.id, (SELECT count(*) FROM nodes n WHERE n.state = 'ready'
                  AND stoker_is_live(n.state, n.heartbeat_at, n.lease_s) AND v.id = ANY (n.versions)) AS live_nodes
    FROM app_versions v
)
SELECT a.name AS app, left(v.hash, 12) AS version, l.uses_gpus, t.name AS tenant,
       coalesce(w.queued, 0) AS queued, coalesce(w.scheduled, 0) AS scheduled, l.running,
       extract(epoch FROM stoker_now() - w.oldest)::float8 AS oldest_wait_s,
       l.paused OR a.paused AS paused, l.max_running, l.weight, s.live_nodes
FROM queue_lanes l
JOIN app_versions v ON v.id = l.version_id
JOIN served s ON s.id = l.version_id
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

CREATE OR REPLACE VIEW v_gpu_seconds AS
SELECT t.name AS tenant, a.name AS app, u.day, u.attempts, u.gpu_seconds, u.useful_gpu_seconds, u.wasted_gpu_seconds,
       u.cold_starts
FROM (
    SELECT tenant_id, app_id, date_trunc('day', ended_at) AS day, count(*) AS attempts, sum(gpu_seconds) AS gpu_seconds,
           coalesce(sum(gpu_seconds) FILTER (WHERE outcome = 'succeeded'), 0) AS useful_gpu_seconds,
           coalesce(sum(gpu_seconds) FILTER (WHERE outcome <> 'succeeded'), 0) AS wasted_gpu_seconds,
           count(*) FILTER (WHERE NOT warm) AS cold_starts
    FROM usage_records GROUP BY tenant_id, app_id, date_trunc('day', ended_at)
) u
JOIN tenants t ON t.id = u.tenant_id
JOIN apps a ON a.id = u.app_id
ORDER BY day DESC, tenant, app;

-- A tenant's or an app's jobs alone are numbered where those are asked for: their names are among what divides them.
CREATE OR REPLACE VIEW v_queue_positions AS
SELECT id AS job_id, app, version, uses_gpus, tenant, priority,
       row_number() OVER (PARTITION BY version_id, uses_gpus, tenant_id, tenant, app ORDER BY priority, id) - 1 AS position,
       waited_s, lane_vtime, lane_job_cost
FROM (
    SELECT j.id, j.version_id, j.uses_gpus, j.tenant_id, j.priority, a.name AS app, left(v.hash, 12) AS version,
           t.name AS tenant, extract(epoch FROM stoker_now() - j.available_at)::float8 AS waited_s,
           l.vtime AS lane_vtime, l.job_cost AS lane_job_cost
    FROM jobs j
    JOIN queue_lanes l USING (version_id, uses_gpus, tenant_id)
    JOIN app_versions v ON v.id = j.version_id
    JOIN apps a ON a.id = v.app_id
    JOIN tenants t ON t.id = l.tenant_id
    WHERE j.state = 'queued'
) waiting;
"""

DOWN = """
CREATE OR REPLACE VIEW v_queue_depth AS
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

CREATE OR REPLACE VIEW v_gpu_seconds AS
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

CREATE OR REPLACE VIEW v_queue_positions AS
SELECT j.id AS job_id, a.name AS app, left(v.hash, 12) AS version, j.uses_gpus, t.name AS tenant, j.priority, j.position,
       extract(epoch FROM stoker_now() - j.available_at)::float8 AS waited_s,
       l.vtime AS lane_vtime, l.job_cost AS lane_job_cost
FROM (
    SELECT id, version_id, uses_gpus, tenant_id, priority, available_at,
           row_number() OVER (PARTITION BY version_id, uses_gpus, tenant_id ORDER BY priority, id) - 1 AS position
    FROM jobs WHERE state = 'queued'
) j
JOIN queue_lanes l USING (version_id, uses_gpus, tenant_id)
JOIN app_versions v ON v.id = j.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants t ON t.id = j.tenant_id;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
