"""Usage by phase: each record has its attempt's phases and peak memory, and a view sums them.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE usage_records ADD COLUMN phases JSONB DEFAULT '{}' NOT NULL, ADD COLUMN peak_memory_bytes BIGINT;
UPDATE usage_records u SET phases = t.phases, peak_memory_bytes = t.peak_memory_bytes
FROM job_attempts t WHERE t.job_id = u.job_id AND t.attempt = u.attempt;
CREATE VIEW v_usage AS
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
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_readonly') THEN
        GRANT SELECT ON v_usage TO stoker_readonly;
    END IF;
END $$;
"""

DOWN = """
DROP VIEW v_usage;
ALTER TABLE usage_records DROP COLUMN phases, DROP COLUMN peak_memory_bytes;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
