"""An attempt whose log is longer than its rows has the rest in a file, found by the token of its link.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE job_attempts ADD COLUMN log_token TEXT, ADD COLUMN log_file JSONB;
"""

DOWN = """
ALTER TABLE job_attempts DROP COLUMN log_token, DROP COLUMN log_file;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
