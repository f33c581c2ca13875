-- What is needed to decide about running jobs, behind the app's lock. Leases are locked in one order, so that no heartbeat
-- can deadlock with it; one that was renewed while we waited for it is not expired any more and drops out.
SELECT l.job_id, l.attempt, l.node_id, j.failures, j.crashes, j.max_attempts,
       j.cancel_requested_at IS NOT NULL AS cancel_asked, j.no_retry,
       (SELECT count(*) FROM job_attempts t
        WHERE t.job_id = l.job_id AND t.error ->> 'code' = ANY (%(excused)s::text[])) AS excused
FROM job_leases l JOIN jobs j ON j.id = l.job_id AND j.attempt = l.attempt AND j.state = 'running'
WHERE (l.job_id, l.attempt) IN (SELECT * FROM unnest(%(job_ids)s::uuid[], %(attempts)s::int[]))
  AND (NOT %(only_expired)s OR l.expires_at < stoker_now())
ORDER BY l.job_id FOR UPDATE OF l
