"""How many jobs of an app may wait, and the index that counts the scheduled ones of a version.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE apps ADD COLUMN max_queue_length INTEGER;
ALTER TABLE apps ADD CONSTRAINT ck_apps_max_queue_length CHECK (max_queue_length > 0);
CREATE INDEX jobs_scheduled ON jobs (version_id) WHERE state = 'scheduled';
"""

DOWN = """
DROP INDEX jobs_scheduled;
ALTER TABLE apps DROP COLUMN max_queue_length;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
