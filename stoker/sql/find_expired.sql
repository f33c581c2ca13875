SELECT l.job_id, l.attempt, v.app_id FROM job_leases l JOIN app_versions v ON v.id = l.version_id
LEFT JOIN nodes n ON n.id = l.node_id
WHERE l.expires_at < stoker_now()
  AND (%(back_since)s::timestamptz IS NULL
       OR %(back_since)s::timestamptz + make_interval(secs => coalesce(n.lease_s, 0)) < stoker_now())
ORDER BY l.expires_at LIMIT %(limit)s
