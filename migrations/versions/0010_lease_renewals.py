"""When a lease was last renewed: what is known of the work of a node that was lost.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE job_leases ADD COLUMN renewed_at TIMESTAMP WITH TIME ZONE DEFAULT stoker_now() NOT NULL;
"""

DOWN = """
ALTER TABLE job_leases DROP COLUMN renewed_at;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
