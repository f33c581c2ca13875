-- Driven from the lease: an attempt that does not hold its job names no child. No row: it has lost the lease, or
-- another of its calls has just taken the name.
INSERT INTO job_children (child_id, parent_id, root_id, depth, name, generation)
SELECT %(child_id)s, l.job_id, %(root_id)s, %(depth)s, %(name)s, %(generation)s
FROM job_leases l WHERE l.job_id = %(parent_id)s AND l.attempt = %(attempt)s
ON CONFLICT (parent_id, name, generation) DO NOTHING
RETURNING child_id
