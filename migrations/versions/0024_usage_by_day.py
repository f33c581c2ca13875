"""Usage of some days is read by the index of its time: the views that add it up do so day by day.

Columns stay; within a day no order is made, which cost more than adding up. Frozen: it imports nothing of the project,
so that it makes the same schema for ever.
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

UP = """
CREATE OR REPLACE VIEW v_gpu_seconds AS
SELECT t.name AS tenant, a.name AS app, d.day, u.attempts, u.gpu_seconds, u.useful_gpu_seconds, u.wasted_gpu_seconds,
         u.cold_starts
FROM generate_series((SELECT date_trunc('day', min(ended_at)) FROM usage_records),
                       (SELECT max(ended_at) FROM usage_records), interval '1 day') d (day)
CROSS JOIN LATERAL (
    SELECT r.tenant_id, r.app_id, count(*) AS attempts, sum(r.gpu_seconds) AS gpu_seconds,
           coalesce(sum(r.gpu_seconds) FILTER (WHERE r.outcome = 'succeeded'), 0) AS useful_gpu_seconds,
           coalesce(sum(r.gpu_seconds) FILTER (WHERE r.outcome <> 'succeeded'), 0) AS wasted_gpu_seconds,
           count(*) FILTER (WHERE NOT r.warm) AS cold_starts
    FROM usage_records r WHERE r.ended_at >= d.day AND r.ended_at < d.day + interval '1 day'
    GROUP BY r.tenant_id, r.app_id
) u
JOIN tenants t ON t.id = u.tenant_id
JOIN apps a ON a.id = u.app_id
ORDER BY d.day DESC;
CREATE OR REPLACE VIEW v_usage AS
SELECT t.name AS tenant, a.name AS app, d.day, u.outcome, u.attempts, u.gpu_seconds, u.warm, u.cold, u.queued_s,
         u.claimed_s, u.cold_start_s, u.run_s, u.upload_s, u.held_s, u.peak_memory_bytes
FROM generate_series((SELECT date_trunc('day', min(ended_at)) FROM usage_records),
                       (SELECT max(ended_at) FROM usage_records), interval '1 day') d (day)
CROSS JOIN LATERAL (
    SELECT r.tenant_id, r.app_id, r.outcome, count(*) AS attempts, sum(r.gpu_seconds) AS gpu_seconds,
           count(*) FILTER (WHERE r.warm) AS warm, count(*) FILTER (WHERE NOT r.warm) AS cold,
           coalesce(sum((r.phases ->> 'queued')::float8), 0) AS queued_s,
           coalesce(sum((r.phases ->> 'claimed')::float8), 0) AS claimed_s,
           coalesce(sum((r.phases ->> 'cold_start')::float8), 0) AS cold_start_s,
           coalesce(sum((r.phases ->> 'run')::float8), 0) AS run_s,
           coalesce(sum((r.phases ->> 'upload')::float8), 0) AS upload_s,
           coalesce(sum((r.phases ->> 'held')::float8), 0) AS held_s,
           max(r.peak_memory_bytes) AS peak_memory_bytes
    FROM usage_records r WHERE r.ended_at >= d.day AND r.ended_at < d.day + interval '1 day'
    GROUP BY r.tenant_id, r.app_id, r.outcome
) u
JOIN tenants t ON t.id = u.tenant_id
JOIN apps a ON a.id = u.app_id
ORDER BY d.day DESC;
"""

DOWN = """
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

CREATE OR REPLACE VIEW v_usage AS
SELECT t.name AS tenant, a.name AS app, date_trunc('day', u.ended_at) AS day, u.outcome, count(*) AS attempts,
       sum(u.gpu_seconds) AS gpu_seconds,
       count(*) FILTER (WHERE u.warm) AS warm, count(*) FILTER (WHERE NOT u.warm) AS cold,
       coalesce(sum((u.phases ->> 'queued')::float8), 0) AS queued_s,
       coalesce(sum((u.phases ->> 'claimed')::float8), 0) AS claimed_s,
       coalesce(sum((u.phases ->> 'cold_start')::float8), 0) AS cold_start_s,
       coalesce(sum((u.phases ->> 'run')::float8), 0) AS run_s,
       coalesce(sum((u.phases ->> 'upload')::float8), 0) AS upload_s,
       coalesce(sum((u.phases ->> 'held')::float8), 0) AS held_s,
       max(u.peak_memory_bytes) AS peak_memory_bytes
FROM usage_records u
JOIN tenants t ON t.id = u.tenant_id
JOIN apps a ON a.id = u.app_id
GROUP BY t.name, a.name, date_trunc('day', u.ended_at), u.outcome
ORDER BY day DESC, tenant, app, u.outcome;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
