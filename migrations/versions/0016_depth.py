"""How many calls deep a job is, in its row: it costs no rewriting of the table, and 0017 fills in what may still matter.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN depth SMALLINT DEFAULT 0 NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE jobs DROP COLUMN depth")
