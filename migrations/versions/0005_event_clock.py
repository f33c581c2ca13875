"""The clock that the marks of events rise with, and up to where a tenant's events were deleted.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE event_clock (
    id BOOLEAN DEFAULT true NOT NULL,
    era INTEGER DEFAULT 1 NOT NULL,
    base BIGINT DEFAULT 0 NOT NULL,
    server TEXT NOT NULL,
    CONSTRAINT pk_event_clock PRIMARY KEY (id),
    CONSTRAINT ck_event_clock_single CHECK (id)
);

CREATE FUNCTION stoker_server() RETURNS text LANGUAGE sql STABLE AS
$$ SELECT s.system_identifier || '.' || c.timeline_id FROM pg_control_system() s, pg_control_checkpoint() c $$;
COMMENT ON FUNCTION stoker_server() IS 'Names this cluster and its timeline: another one has other transaction numbers.';

CREATE FUNCTION stoker_mark() RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT c.base + pg_current_xact_id()::text::bigint FROM event_clock c $$;
COMMENT ON FUNCTION stoker_mark() IS 'The number of this transaction, on a clock that a restored database does not set back.';

CREATE FUNCTION stoker_horizon() RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT c.base + pg_snapshot_xmin(pg_current_snapshot())::text::bigint FROM event_clock c $$;
COMMENT ON FUNCTION stoker_horizon() IS 'No transaction below this mark is open: what it has written is all there is.';

INSERT INTO event_clock (server) VALUES (stoker_server());

ALTER TABLE tenants ADD COLUMN events_pruned BIGINT DEFAULT 0 NOT NULL;
"""

DOWN = """
ALTER TABLE tenants DROP COLUMN events_pruned;
DROP FUNCTION stoker_horizon();
DROP FUNCTION stoker_mark();
DROP FUNCTION stoker_server();
DROP TABLE event_clock;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
