"""The view of attempts tells of log files, without their links: who may read views may not read what apps have said.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

VIEW = """
CREATE {} VIEW v_attempts AS
SELECT t.job_id, t.attempt, a.name AS app, j.endpoint, n.name AS tenant, t.node_id, t.runner, t.outcome,
       t.error ->> 'code' AS error_code, t.error ->> 'message' AS error_message, t.claimed_at, t.ended_at,
       extract(epoch FROM coalesce(t.ended_at, stoker_now()) - t.claimed_at)::float8 AS duration_s,
       t.gpus, t.gpu_seconds, t.warm, t.phases, t.peak_memory_bytes{}
FROM job_attempts t
JOIN jobs j ON j.id = t.job_id
JOIN app_versions v ON v.id = j.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants n ON n.id = j.tenant_id;
"""
UP = VIEW.format("OR REPLACE", ", t.log_file - 'url' AS log_file")
# A column cannot be taken from a view.
DOWN = (
    "DROP VIEW v_attempts;"
    + VIEW.format("", "")
    + """
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_readonly') THEN
        GRANT SELECT ON v_attempts TO stoker_readonly;
    END IF;
END $$;
"""
)


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
