-- In the transaction that has told of it: the lease is held, or that has told nothing.
UPDATE job_attempts t SET log_token = %(token)s, log_file = %(log_file)s
WHERE t.job_id = %(job_id)s AND t.attempt = %(attempt)s
  AND EXISTS (SELECT 1 FROM job_leases l WHERE l.job_id = t.job_id AND l.attempt = t.attempt)
