"""Lanes are served by what their jobs take: the expected cost of a job on the lane, what was charged on the lease.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Until now each job was charged 1; what runs at this moment was, too.
UP = """
ALTER TABLE queue_lanes ADD COLUMN job_cost DOUBLE PRECISION DEFAULT 1 NOT NULL;
ALTER TABLE queue_lanes ADD CONSTRAINT ck_queue_lanes_job_cost CHECK (job_cost > 0);
ALTER TABLE job_leases ADD COLUMN charged DOUBLE PRECISION DEFAULT 1 NOT NULL;
"""

DOWN = """
ALTER TABLE job_leases DROP COLUMN charged;
ALTER TABLE queue_lanes DROP COLUMN job_cost;
"""


def upgrade() -> None:
    run(UP)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
