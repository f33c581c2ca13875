-- First in its transaction, as a statement of its own: the statements after it take their snapshots behind the lock, so
-- that they see all that the last holder did.
SELECT pg_advisory_xact_lock(hashtextextended(id::text, 0)) FROM apps WHERE name = %(app)s
