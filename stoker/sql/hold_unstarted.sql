-- Behind the app's lock: a job may have been started since it was found.
SELECT j.id AS job_id FROM jobs j
WHERE j.id = ANY (%(job_ids)s) AND j.state IN ('scheduled', 'queued') AND j.attempt = 0
  AND j.start_deadline <= stoker_now()
