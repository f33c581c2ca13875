"""When a runner was last used, and until when its app is quarantined on its node.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE runners ADD COLUMN used_at TIMESTAMP WITH TIME ZONE;
ALTER TABLE runners ADD COLUMN quarantined_until TIMESTAMP WITH TIME ZONE;
"""

DOWN = """
ALTER TABLE runners DROP COLUMN quarantined_until;
ALTER TABLE runners DROP COLUMN used_at;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
