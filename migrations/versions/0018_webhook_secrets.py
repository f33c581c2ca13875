"""Whose a signing key is, what a receiver of webhooks answered, and from which try on a delivery that is sent again counts.

Each statement is a transaction by itself: no table is held while another is waited for, and one that was carried out
before an interruption is passed over. Frozen: it imports nothing of the project, so that it makes the same schema for
ever.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

UP = (
    "ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS tenant_id UUID",
    "CREATE INDEX IF NOT EXISTS signing_keys_of_tenant ON signing_keys (tenant_id)",
    "ALTER TABLE webhook_deliveries ADD COLUMN IF NOT EXISTS tries_before INTEGER DEFAULT 0 NOT NULL",
    "ALTER TABLE delivery_attempts ADD COLUMN IF NOT EXISTS answer TEXT",
)
DOWN = (
    "ALTER TABLE delivery_attempts DROP COLUMN answer",
    "ALTER TABLE webhook_deliveries DROP COLUMN tries_before",
    "ALTER TABLE signing_keys DROP COLUMN tenant_id",
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for statement in UP:
            op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
