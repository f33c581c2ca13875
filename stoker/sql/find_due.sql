SELECT j.id AS job_id, v.app_id, a.name AS queue
FROM jobs j JOIN app_versions v ON v.id = j.version_id JOIN apps a ON a.id = v.app_id
WHERE j.state = 'scheduled' AND j.available_at <= stoker_now()
ORDER BY j.available_at LIMIT %(limit)s
