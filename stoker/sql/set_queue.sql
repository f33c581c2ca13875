-- Behind the app's lock: no claim that began before sees the old values after this has committed.
WITH changed AS (
    UPDATE apps SET paused = %(paused)s, max_running = %(max_running)s, max_queue_length = %(max_queue_length)s
    WHERE id = %(app_id)s
)
INSERT INTO audit_log (tenant_id, key_id, action, target, data)
VALUES (%(by_tenant)s, %(by_key)s, %(action)s, %(app)s, jsonb_build_object(
    'paused', %(paused)s::boolean, 'max_running', %(max_running)s::int, 'max_queue_length', %(max_queue_length)s::int))
