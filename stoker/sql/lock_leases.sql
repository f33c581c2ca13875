-- In the order in which a heartbeat locks them: whoever ends several at a time would otherwise meet it half way.
SELECT 1 FROM job_leases WHERE job_id = ANY (%(job_ids)s::uuid[]) ORDER BY job_id FOR UPDATE
