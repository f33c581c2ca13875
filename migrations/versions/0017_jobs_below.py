"""The index by which a claim finds the jobs that are deep enough, and the depth of the children that still wait.

The index is built beside the work that goes on, outside of a transaction. What a build that was interrupted left behind
is not valid, and dropped first. Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

FILL = """
UPDATE jobs j SET depth = c.depth FROM job_children c
WHERE c.child_id = j.id AND NOT c.is_settled AND j.finished_at IS NULL AND j.depth <> c.depth
"""
INDEX = """
CREATE INDEX CONCURRENTLY jobs_below ON jobs (version_id, uses_gpus, tenant_id, depth DESC, priority, id)
WHERE state = 'queued' AND depth > 0
"""
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('jobs_below')"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(FILL)
        # A build waits for older transactions, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        is_valid = op.get_bind().exec_driver_sql(IS_VALID).scalar()
        if is_valid is False:
            op.execute("DROP INDEX CONCURRENTLY jobs_below")
        if not is_valid:
            op.execute(INDEX)


def downgrade() -> None:
    op.execute("DROP INDEX jobs_below")
