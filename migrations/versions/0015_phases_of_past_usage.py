"""Phases and peak memory of the usage that was recorded before it had columns for them: what its attempts know.

Some thousand rows at a time, each time in a transaction of its own that locks no table. Begun again, it finds what it
had done. Frozen: it imports nothing of the project, so that it makes the same data for ever.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

FILL = """
WITH batch AS MATERIALIZED (
    SELECT job_id, attempt FROM usage_records WHERE (job_id, attempt) > (%(job_id)s::uuid, %(attempt)s::int)
    ORDER BY job_id, attempt LIMIT 2000
), filled AS (
    UPDATE usage_records u SET phases = t.phases, peak_memory_bytes = t.peak_memory_bytes
    FROM batch b JOIN job_attempts t USING (job_id, attempt)
    WHERE u.job_id = b.job_id AND u.attempt = b.attempt AND u.phases = '{}' AND t.phases <> '{}'
)
SELECT job_id, attempt FROM batch ORDER BY job_id DESC, attempt DESC LIMIT 1
"""
FIRST = {"job_id": "00000000-0000-0000-0000-000000000000", "attempt": 0}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        after = FIRST
        while (last := op.get_bind().exec_driver_sql(FILL, after).mappings().first()) is not None:
            after = dict(last)


def downgrade() -> None:
    """The columns go with 0011."""
