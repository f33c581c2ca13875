"""The newest mark among a job's events.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE job_heads ADD COLUMN mark BIGINT DEFAULT 0 NOT NULL;
"""

DOWN = """
ALTER TABLE job_heads DROP COLUMN mark;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
