SELECT l.job_id, l.attempt, v.app_id FROM job_leases l JOIN app_versions v ON v.id = l.version_id
WHERE (l.job_id, l.attempt) IN (SELECT * FROM unnest(%(job_ids)s::uuid[], %(attempts)s::int[]))
