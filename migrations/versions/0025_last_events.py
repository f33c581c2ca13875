"""Of a final job the last event alone may be kept: v_invariants has no objection.

Frozen: it imports nothing of the project, so that it makes the same schema for ever.
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

VIEW = """
CREATE OR REPLACE VIEW v_invariants AS
SELECT 'a running job has a lease of its attempt' AS rule, j.id AS job_id, format('attempt %s', j.attempt) AS detail
FROM jobs j WHERE j.state = 'running'
  AND NOT EXISTS (SELECT 1 FROM job_leases l WHERE l.job_id = j.id AND l.attempt = j.attempt)
UNION ALL
SELECT 'a lease belongs to a running job and its attempt', l.job_id, format('attempt %s on %s', l.attempt, l.node_id)
FROM job_leases l LEFT JOIN jobs j ON j.id = l.job_id WHERE j.state IS DISTINCT FROM 'running' OR j.attempt <> l.attempt
UNION ALL
SELECT 'a lane counts its leases', NULL,
       format('version %s, tenant %s: %s counted, %s held', q.version_id, q.tenant_id, q.running, coalesce(c.held, 0))
FROM queue_lanes q LEFT JOIN (
    SELECT version_id, uses_gpus, tenant_id, count(*) AS held FROM job_leases WHERE counts
    GROUP BY version_id, uses_gpus, tenant_id
) c USING (version_id, uses_gpus, tenant_id) WHERE q.running <> coalesce(c.held, 0)
UNION ALL
SELECT 'a lane with a ready job is awake', NULL, format('version %s, tenant %s', q.version_id, q.tenant_id)
FROM queue_lanes q WHERE NOT q.has_ready AND EXISTS (
    SELECT 1 FROM jobs j WHERE j.version_id = q.version_id AND j.uses_gpus = q.uses_gpus AND j.tenant_id = q.tenant_id
    AND j.state = 'queued')
UNION ALL
SELECT 'attempts are numbered 1, 2, 3 ... up to the job''s', j.id, format('%s of %s', coalesce(t.n, 0), j.attempt)
FROM jobs j LEFT JOIN (SELECT job_id, count(*) AS n, max(attempt) AS top FROM job_attempts GROUP BY job_id) t ON t.job_id = j.id
WHERE coalesce(t.n, 0) <> j.attempt OR coalesce(t.top, 0) <> j.attempt
UNION ALL
SELECT 'an attempt is open exactly while it holds the lease', t.job_id, format('attempt %s', t.attempt)
FROM job_attempts t LEFT JOIN job_leases l ON l.job_id = t.job_id AND l.attempt = t.attempt
WHERE (t.outcome IS NULL) <> (l.job_id IS NOT NULL)
UNION ALL
SELECT 'a job succeeds by one attempt', t.job_id, format('%s succeeded', count(*))
FROM job_attempts t JOIN jobs j ON j.id = t.job_id WHERE t.outcome = 'succeeded'
GROUP BY t.job_id, j.state HAVING count(*) <> 1 OR j.state <> 'succeeded'
UNION ALL
{events}UNION ALL
SELECT 'the last event of a final job, and no other, says its state', j.id, format('%s final events', e.n)
FROM jobs j JOIN job_heads h ON h.job_id = j.id
CROSS JOIN LATERAL (
    SELECT count(*) AS n, count(*) FILTER (WHERE v.seq = h.last_seq AND v.data ->> 'state' = j.state) AS last
    FROM job_events v WHERE v.job_id = j.id AND v.kind = 'state' AND v.data ->> 'state' IN ('succeeded', 'failed', 'cancelled')
) e
WHERE e.n <> (j.finished_at IS NOT NULL)::int OR e.last <> e.n
UNION ALL
SELECT 'a final job with a webhook has one delivery', j.id, format('%s deliveries', count(d.id))
FROM jobs j LEFT JOIN webhook_deliveries d ON d.job_id = j.id
GROUP BY j.id HAVING count(d.id) <> CASE WHEN j.finished_at IS NOT NULL AND j.webhook_url IS NOT NULL THEN 1 ELSE 0 END
UNION ALL
SELECT 'usage is what the attempt took', t.job_id, format('attempt %s: %s and %s', t.attempt, t.gpu_seconds, u.gpu_seconds)
FROM job_attempts t LEFT JOIN usage_records u ON u.job_id = t.job_id AND u.attempt = t.attempt
WHERE t.gpu_seconds <> coalesce(u.gpu_seconds, 0) OR (u.job_id IS NOT NULL AND u.outcome IS DISTINCT FROM t.outcome)
   OR (u.job_id IS NULL AND t.outcome IS NOT NULL AND t.phases <> '{{}}')
UNION ALL
SELECT 'outputs are of the attempt that succeeded', o.job_id, format('attempt %s: %s', o.attempt, o.name)
FROM job_outputs o JOIN jobs j ON j.id = o.job_id WHERE j.state <> 'succeeded' OR o.attempt <> j.attempt;
"""
EVENTS_BEFORE = """\
SELECT 'events are numbered without a gap', h.job_id, format('last_seq %s, %s rows up to %s', h.last_seq, e.n, e.top)
FROM job_heads h LEFT JOIN (SELECT job_id, count(*) AS n, max(seq) AS top FROM job_events GROUP BY job_id) e USING (job_id)
WHERE h.last_seq IS DISTINCT FROM e.n OR h.last_seq IS DISTINCT FROM e.top
"""
EVENTS = """\
SELECT 'events are numbered without a gap', h.job_id, format('last_seq %s, %s rows up to %s', h.last_seq, e.n, e.top)
FROM job_heads h LEFT JOIN (SELECT job_id, count(*) AS n, max(seq) AS top FROM job_events GROUP BY job_id) e USING (job_id)
WHERE h.last_seq IS DISTINCT FROM e.top OR h.last_seq <> e.n AND (
    e.n <> 1 OR EXISTS (SELECT FROM jobs j WHERE j.id = h.job_id AND j.finished_at IS NULL))
"""


def upgrade() -> None:
    run(VIEW.format(events=EVENTS))


def downgrade() -> None:
    run(VIEW.format(events=EVENTS_BEFORE))


def run(script: str) -> None:
    """A statement as it stands: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
