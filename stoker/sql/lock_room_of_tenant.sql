-- Before all else in a submit of a tenant whose waiting jobs are limited: who counts must not be overtaken by who also
-- counts. Claims do not wait for it.
SELECT pg_advisory_xact_lock(hashtextextended('room of tenant ' || %(tenant_id)s::uuid, 0))
