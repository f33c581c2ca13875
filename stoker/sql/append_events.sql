-- KEY SHARE: whoever ends the lease waits for us, or we find it gone; a heartbeat passes.
WITH held AS MATERIALIZED (
    SELECT job_id, attempt, tenant_id FROM job_leases WHERE job_id = %(job_id)s AND attempt = %(attempt)s FOR KEY SHARE
), head AS (
    UPDATE job_heads h SET last_seq = h.last_seq + %(count)s, mark = greatest(h.mark, stoker_mark())
    FROM held WHERE h.job_id = held.job_id
    RETURNING h.job_id, h.last_seq, h.mark, held.tenant_id
), event AS (
    INSERT INTO job_events (tenant_id, mark, job_id, seq, attempt, kind, data)
    SELECT h.tenant_id, h.mark, h.job_id, h.last_seq - %(count)s + e.n, %(attempt)s, e.kind, e.data
    FROM head h, unnest(%(kinds)s::text[], %(data)s::jsonb[]) WITH ORDINALITY AS e (kind, data, n)
)
SELECT last_seq FROM head
