-- KEY SHARE: whoever ends the lease waits for us, or we find it gone; a heartbeat passes.
WITH held AS MATERIALIZED (
    SELECT job_id, attempt FROM job_leases WHERE job_id = %(job_id)s AND attempt = %(attempt)s FOR KEY SHARE
), head AS (
    UPDATE job_heads h SET last_seq = h.last_seq + %(count)s FROM held WHERE h.job_id = held.job_id
    RETURNING h.job_id, h.last_seq
), event AS (
    INSERT INTO job_events (job_id, seq, attempt, kind, data)
    SELECT h.job_id, h.last_seq - %(count)s + e.n, %(attempt)s, e.kind, e.data
    FROM head h, unnest(%(kinds)s::text[], %(data)s::jsonb[]) WITH ORDINALITY AS e (kind, data, n)
)
SELECT last_seq FROM head
