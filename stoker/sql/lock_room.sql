-- Before all else in a submit to an app whose queue has a limit: who counts must not be overtaken by who also counts.
-- Claims do not wait for it.
SELECT pg_advisory_xact_lock(hashtextextended('room of ' || app_id, 0)) FROM app_versions WHERE id = %(version_id)s
