"""What the stream of a tenant's events is read by: each row's tenant and mark.

Rows that are there before it stay without: the stream of many jobs begins here. Processes of the release before write
both as NULL while the update goes on; a trigger fills them in. Frozen: it imports nothing of the project.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE job_events ADD COLUMN tenant_id UUID, ADD COLUMN mark BIGINT;

-- At the end of the statement: a submit of the release before writes the event before it writes the head.
CREATE FUNCTION stoker_mark_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH head AS (
        UPDATE job_heads SET mark = greatest(mark, stoker_mark()) WHERE job_id = NEW.job_id RETURNING mark
    )
    UPDATE job_events e SET tenant_id = j.tenant_id, mark = h.mark
    FROM head h, jobs j WHERE j.id = NEW.job_id AND e.job_id = NEW.job_id AND e.seq = NEW.seq;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION stoker_mark_event() IS 'Marks an event of a process that knows no marks.';
CREATE TRIGGER mark_event AFTER INSERT ON job_events FOR EACH ROW WHEN (NEW.mark IS NULL)
EXECUTE FUNCTION stoker_mark_event();
"""

DOWN = """
DROP TRIGGER mark_event ON job_events;
DROP FUNCTION stoker_mark_event();
ALTER TABLE job_events DROP COLUMN tenant_id, DROP COLUMN mark;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
