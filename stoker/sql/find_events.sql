-- Of each job the rows of events past those that were read, by its key alone.
SELECT e.job_id, e.seq, e.attempt, e.kind, e.data, e.created_at
FROM unnest(%(job_ids)s::uuid[], %(seqs)s::int[]) AS past (job_id, seq)
CROSS JOIN LATERAL (
    SELECT o.job_id, o.seq, o.attempt, o.kind, o.data, o.created_at FROM job_events o
    WHERE o.job_id = past.job_id AND o.seq > past.seq ORDER BY o.seq LIMIT %(limit)s
) e
ORDER BY e.job_id, e.seq
