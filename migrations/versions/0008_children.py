"""Children: which job was started by which, under what name, and two views of it.

A table of its own: on a large table of jobs nothing is rewritten or read. Frozen: it imports nothing of the project, so
that it makes the same schema for ever.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE job_children (
    child_id UUID NOT NULL,
    parent_id UUID NOT NULL,
    root_id UUID NOT NULL,
    depth SMALLINT NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    is_settled BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT pk_job_children PRIMARY KEY (child_id),
    CONSTRAINT uq_job_children_parent_id UNIQUE (parent_id, name, generation),
    CONSTRAINT ck_job_children_place CHECK (depth > 0 AND generation > 0 AND parent_id <> child_id),
    CONSTRAINT fk_job_children_child_id FOREIGN KEY(child_id) REFERENCES jobs (id) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX children_of_root ON job_children (root_id);
CREATE INDEX children_unsettled ON job_children (parent_id) WHERE NOT is_settled;

CREATE VIEW v_job_children AS
SELECT c.root_id, c.parent_id, c.child_id, c.depth, c.name, c.generation, a.name AS app, j.endpoint, t.name AS tenant,
       j.state, j.attempt, j.error ->> 'code' AS error_code, j.created_at, j.started_at, j.finished_at,
       (SELECT coalesce(sum(x.gpu_seconds), 0) FROM job_attempts x WHERE x.job_id = c.child_id) AS gpu_seconds
FROM job_children c
JOIN jobs j ON j.id = c.child_id
JOIN app_versions v ON v.id = j.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants t ON t.id = j.tenant_id;

CREATE VIEW v_job_trees AS
SELECT r.id AS root_id, a.name AS app, t.name AS tenant, r.state, r.created_at, r.finished_at,
       s.jobs, s.open, s.depth, s.attempts, s.gpu_seconds
FROM (
    SELECT m.root_id, count(*) AS jobs, count(*) FILTER (WHERE j.finished_at IS NULL) AS open, max(m.depth) AS depth,
           sum(x.attempts)::bigint AS attempts, sum(x.gpu_seconds) AS gpu_seconds
    FROM (
        SELECT DISTINCT root_id, root_id AS job_id, 0 AS depth FROM job_children
        UNION ALL
        SELECT root_id, child_id, depth FROM job_children
    ) m
    JOIN jobs j ON j.id = m.job_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS attempts, coalesce(sum(gpu_seconds), 0) AS gpu_seconds
        FROM job_attempts WHERE job_id = m.job_id
    ) x
    GROUP BY m.root_id
) s
JOIN jobs r ON r.id = s.root_id
JOIN app_versions v ON v.id = r.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants t ON t.id = r.tenant_id;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_readonly') THEN
        GRANT SELECT ON v_job_children, v_job_trees TO stoker_readonly;
    END IF;
END $$;
"""

DOWN = """
DROP VIEW v_job_trees, v_job_children;
DROP TABLE job_children;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
