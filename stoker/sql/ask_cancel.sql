UPDATE jobs SET cancel_requested_at = stoker_now()
WHERE id = %(job_id)s AND state = 'running' AND cancel_requested_at IS NULL
