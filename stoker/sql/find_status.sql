-- What one who polls is told of a job, by keys alone.
SELECT a.name AS app, j.state, j.error, j.attempt, h.last_seq, (
    SELECT (t.phases ->> 'run')::float8 FROM job_attempts t WHERE t.job_id = j.id ORDER BY t.attempt DESC LIMIT 1
) AS run_s, CASE WHEN j.state = 'queued' THEN (
    SELECT count(*) FROM (
        SELECT 1 FROM jobs o
        WHERE o.version_id = j.version_id AND o.uses_gpus = j.uses_gpus AND o.tenant_id = j.tenant_id
          AND o.state = 'queued' AND (o.priority, o.id) < (j.priority, j.id)
        LIMIT %(counted)s
    ) before
) END AS position
FROM jobs j JOIN job_heads h ON h.job_id = j.id JOIN app_versions v ON v.id = j.version_id JOIN apps a ON a.id = v.app_id
WHERE j.id = %(job_id)s AND j.tenant_id = %(tenant_id)s
