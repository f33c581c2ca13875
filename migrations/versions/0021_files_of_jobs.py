"""Files that a job's app has made for a job that it starts: they go with that job.

The index is built beside the work that goes on, outside of a transaction. What a build that was interrupted left behind
is not valid, and dropped first. Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

INDEX = "CREATE INDEX CONCURRENTLY files_of_job ON files (job_id) WHERE job_id IS NOT NULL"
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('files_of_job')"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE files ADD COLUMN IF NOT EXISTS job_id UUID")
        # A build waits for older transactions, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        is_valid = op.get_bind().exec_driver_sql(IS_VALID).scalar()
        if is_valid is False:
            op.execute("DROP INDEX CONCURRENTLY files_of_job")
        if not is_valid:
            op.execute(INDEX)


def downgrade() -> None:
    op.execute("DROP INDEX files_of_job")
    op.execute("ALTER TABLE files DROP COLUMN job_id")
