"""What is kept how long: wishes and marks of jobs and files, what is to be deleted in the store, how far each sweep is.

Each statement is a transaction by itself and may be carried out twice; columns that come have no default, or one that
no row is rewritten for. Indexes are built beside the work that goes on; what a build that was interrupted left behind
is not valid, and dropped first. Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE jobs
    ADD COLUMN IF NOT EXISTS store_io BOOLEAN DEFAULT true NOT NULL,
    ADD COLUMN IF NOT EXISTS no_retry BOOLEAN DEFAULT false NOT NULL,
    ADD COLUMN IF NOT EXISTS keep_outputs_s DOUBLE PRECISION,
    ADD COLUMN IF NOT EXISTS outputs_expire_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN IF NOT EXISTS outputs_removed_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN IF NOT EXISTS payload_removed_at TIMESTAMP WITH TIME ZONE;
ALTER TABLE files ADD COLUMN IF NOT EXISTS expires_at TIMESTAMP WITH TIME ZONE;
ALTER TABLE uploads ADD COLUMN IF NOT EXISTS keep_s DOUBLE PRECISION
"""

TABLES = """
CREATE TABLE IF NOT EXISTS object_removals (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    prefix TEXT NOT NULL,
    is_folder BOOLEAN NOT NULL,
    keep TEXT[] DEFAULT '{}' NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL,
    tries INTEGER DEFAULT 0 NOT NULL,
    last_error TEXT,
    CONSTRAINT pk_object_removals PRIMARY KEY (id)
);
CREATE INDEX IF NOT EXISTS removals_due ON object_removals (due_at);
CREATE TABLE IF NOT EXISTS retention_places (
    kind TEXT NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE DEFAULT '1970-01-01 00:00:00+00' NOT NULL,
    job_id UUID DEFAULT '00000000-0000-0000-0000-000000000000' NOT NULL,
    CONSTRAINT pk_retention_places PRIMARY KEY (kind)
)
"""

INDEXES = {
    "jobs_unstored": """
        INDEX {} ON jobs (finished_at)
        WHERE NOT store_io AND payload_removed_at IS NULL AND finished_at IS NOT NULL""",
    "jobs_outputs_due": """
        INDEX {} ON jobs (outputs_expire_at) WHERE outputs_expire_at IS NOT NULL AND outputs_removed_at IS NULL""",
    "files_expiring": "INDEX {} ON files (expires_at) WHERE expires_at IS NOT NULL",
    "files_by_time": "INDEX {} ON files (created_at) WHERE job_id IS NULL",
}
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{}')"

JOBS_BEFORE = """
SELECT j.id, a.name AS app, j.endpoint, j.kind, left(v.hash, 12) AS version, t.name AS tenant, j.state, j.priority,
       j.attempt, j.failures, j.crashes, j.max_attempts,
       j.created_at, j.available_at, j.started_at, j.finished_at, j.cancel_requested_at,
       extract(epoch FROM coalesce(j.started_at, j.finished_at, stoker_now()) - j.available_at)::float8 AS waited_s,
       extract(epoch FROM coalesce(j.finished_at, stoker_now()) - j.started_at)::float8 AS ran_s,
       l.node_id, extract(epoch FROM l.expires_at - stoker_now())::float8 AS lease_left_s,
       j.error ->> 'code' AS error_code, j.error ->> 'message' AS error_message,
       h.progress, h.progress_at, h.last_seq, j.tags, j.webhook_url, j.parent_id, j.retried_from{more}
FROM jobs j
JOIN app_versions v ON v.id = j.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants t ON t.id = j.tenant_id
LEFT JOIN job_heads h ON h.job_id = j.id
LEFT JOIN job_leases l ON l.job_id = j.id;
"""
JOBS_NOW = JOBS_BEFORE.format(
    more=",\n       j.store_io, j.no_retry, j.outputs_expire_at, j.outputs_removed_at, j.payload_removed_at"
)

VIEWS = """
DROP VIEW IF EXISTS v_retention, v_removals;
CREATE VIEW v_retention AS
SELECT what, waiting, since FROM (
    SELECT 'payloads not to be stored' AS what, count(*) AS waiting, min(finished_at) AS since FROM jobs
    WHERE NOT store_io AND payload_removed_at IS NULL AND finished_at IS NOT NULL
    UNION ALL
    SELECT 'outputs that have expired', count(*), min(outputs_expire_at) FROM jobs
    WHERE outputs_expire_at <= stoker_now() AND outputs_removed_at IS NULL
    UNION ALL
    SELECT 'outputs that will expire', count(*), min(outputs_expire_at) FROM jobs
    WHERE outputs_expire_at > stoker_now() AND outputs_removed_at IS NULL
    UNION ALL
    SELECT 'files that have expired', count(*), min(expires_at) FROM files WHERE expires_at <= stoker_now()
    UNION ALL
    SELECT 'files that will expire', count(*), min(expires_at) FROM files WHERE expires_at > stoker_now()
    UNION ALL
    SELECT 'removals from the store', count(*), min(due_at) FROM object_removals WHERE due_at <= stoker_now()
    UNION ALL
    SELECT 'oldest final job', NULL, min(finished_at) FROM jobs WHERE finished_at IS NOT NULL
    UNION ALL
    SELECT kind || ' removed up to', NULL, finished_at FROM retention_places
) found WHERE since IS NOT NULL;
COMMENT ON VIEW v_retention IS 'What waits to be removed, since when or until when, and how far each sweep has come.';

CREATE VIEW v_removals AS
SELECT id, prefix, is_folder, due_at, extract(epoch FROM due_at - stoker_now())::float8 AS due_in_s, tries, last_error
FROM object_removals;
COMMENT ON VIEW v_removals IS 'Objects that nothing refers to any more, to be deleted in the object store.';

DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_readonly') THEN
        GRANT SELECT ON v_jobs, v_retention, v_removals TO stoker_readonly;
    END IF;
END $$;
"""

DOWN = f"""
DROP VIEW v_retention, v_removals, v_jobs;
CREATE VIEW v_jobs AS {JOBS_BEFORE.format(more="")}
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_readonly') THEN
        GRANT SELECT ON v_jobs TO stoker_readonly;
    END IF;
END $$;
DROP INDEX jobs_unstored, jobs_outputs_due, files_expiring, files_by_time;
DROP TABLE object_removals, retention_places;
ALTER TABLE uploads DROP COLUMN keep_s;
ALTER TABLE files DROP COLUMN expires_at;
ALTER TABLE jobs DROP COLUMN store_io, DROP COLUMN no_retry, DROP COLUMN keep_outputs_s, DROP COLUMN outputs_expire_at,
    DROP COLUMN outputs_removed_at, DROP COLUMN payload_removed_at
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for script in (COLUMNS, TABLES):
            for statement in script.split(";"):
                op.execute(statement)
        run(f"CREATE OR REPLACE VIEW v_jobs AS {JOBS_NOW}")
        run(VIEWS)
        # A build waits for older transactions, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            is_valid = op.get_bind().exec_driver_sql(IS_VALID.format(name)).scalar()
            if is_valid is False:
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            if not is_valid:
                op.execute(f"CREATE {definition}".format(f"CONCURRENTLY {name}"))


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
