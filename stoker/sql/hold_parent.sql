-- KEY SHARE: whoever ends the lease waits for us, or we find it gone; a heartbeat passes.
SELECT l.tenant_id, l.uses_gpus, j.priority, j.key_id, j.cancel_requested_at IS NOT NULL AS cancel_asked,
       j.store_io, j.keep_outputs_s, j.no_retry,
       coalesce(c.root_id, l.job_id) AS root_id, coalesce(c.depth, 0) AS depth
FROM job_leases l JOIN jobs j ON j.id = l.job_id LEFT JOIN job_children c ON c.child_id = l.job_id
WHERE l.job_id = %(parent_id)s AND l.attempt = %(attempt)s FOR KEY SHARE OF l
