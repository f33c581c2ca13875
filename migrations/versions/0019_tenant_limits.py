"""How often a tenant may ask and how many of its jobs may wait; whom an admin's act was about, and which role did it.

Each statement is a transaction by itself: no table is held while another is waited for, and one that was carried out
before an interruption is passed over. Frozen: it imports nothing of the project, so that it makes the same schema for
ever.
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

UP = (
    """
    ALTER TABLE tenants
    ADD COLUMN IF NOT EXISTS max_requests_per_s REAL
        CONSTRAINT ck_tenants_max_requests_per_s CHECK (max_requests_per_s > 0),
    ADD COLUMN IF NOT EXISTS max_waiting INTEGER CONSTRAINT ck_tenants_max_waiting CHECK (max_waiting > 0)
    """,
    # Of the acts before nobody knows the role: the default is for those to come.
    "ALTER TABLE audit_log ADD COLUMN IF NOT EXISTS role TEXT, ADD COLUMN IF NOT EXISTS about_tenant UUID",
    "ALTER TABLE audit_log ALTER COLUMN role SET DEFAULT session_user",
)
DOWN = (
    "ALTER TABLE audit_log DROP COLUMN about_tenant, DROP COLUMN role",
    "ALTER TABLE tenants DROP COLUMN max_waiting, DROP COLUMN max_requests_per_s",
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for statement in UP:
            op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
