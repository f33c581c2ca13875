SELECT id FROM jobs WHERE id = ANY (%(job_ids)s) AND finished_at IS NOT NULL
