SELECT j.id AS job_id, v.app_id FROM jobs j JOIN app_versions v ON v.id = j.version_id
WHERE j.state IN ('scheduled', 'queued') AND j.attempt = 0 AND j.start_deadline IS NOT NULL
  AND j.start_deadline <= stoker_now()
ORDER BY j.start_deadline LIMIT %(limit)s
