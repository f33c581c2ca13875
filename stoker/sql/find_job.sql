SELECT j.state, l.node_id, h.last_seq AS seq
FROM jobs j JOIN job_heads h ON h.job_id = j.id LEFT JOIN job_leases l ON l.job_id = j.id
WHERE j.id = %(job_id)s AND (%(tenant_id)s::uuid IS NULL OR j.tenant_id = %(tenant_id)s)
