-- First in its transaction, as a statement of its own: the statements after it take their snapshots behind the lock, so
-- that they see all that the last holder did.
SELECT pg_advisory_xact_lock(hashtextextended(v.app_id::text, 0))
FROM jobs j JOIN app_versions v ON v.id = j.version_id WHERE j.id = %(job_id)s
