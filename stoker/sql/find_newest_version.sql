-- A version that somebody serves comes before any that nobody does: a job must not wait for one that is gone.
SELECT v.id, a.name AS app, v.hash, v.manifest::text AS manifest, a.max_queue_length
FROM apps a JOIN app_versions v ON v.app_id = a.id
WHERE a.name = %(app)s
ORDER BY EXISTS (
    SELECT 1 FROM nodes n WHERE n.state = 'ready' AND stoker_is_live(n.state, n.heartbeat_at, n.lease_s) AND v.id = ANY (n.versions)
) DESC, v.published_at DESC, v.id DESC LIMIT 1
