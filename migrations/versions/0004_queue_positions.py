"""A view of the jobs that wait, each with its place in its lane.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UP = """
CREATE VIEW v_queue_positions AS
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
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_readonly') THEN
        GRANT SELECT ON v_queue_positions TO stoker_readonly;
    END IF;
END $$;
"""

DOWN = """
DROP VIEW v_queue_positions;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
