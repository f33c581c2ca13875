"""Indexes of a tenant's events, of an app's running lanes and of logs by their token.

Each is built beside the work that goes on, outside of a transaction. What a build that was interrupted left behind is
not valid, and dropped first. Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

INDEXES = {
    "events_of_tenant": "INDEX {} ON job_events (tenant_id, mark) WHERE tenant_id IS NOT NULL",
    "lanes_running": "INDEX {} ON queue_lanes (app_id) WHERE running > 0",
    "attempts_by_log": "UNIQUE INDEX {} ON job_attempts (log_token) WHERE log_token IS NOT NULL",
}
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{}')"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A build waits for older transactions, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            is_valid = op.get_bind().exec_driver_sql(IS_VALID.format(name)).scalar()
            if is_valid is False:
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            if not is_valid:
                op.execute(f"CREATE {definition}".format(f"CONCURRENTLY {name}"))


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
