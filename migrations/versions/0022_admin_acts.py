"""What an admin may do in SQL, as functions that log it, for a role of its own; views of deliveries, acts and requests.

A function is its owner's: who may call it needs no right to a table, and names are looked for in its owner's schema
alone. Each statement is a transaction by itself, and may be carried out twice. Frozen: it imports nothing of the project,
so that it makes the same schema for ever.
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

COLUMN = "ALTER TABLE nodes ADD COLUMN IF NOT EXISTS drain_requested_at TIMESTAMP WITH TIME ZONE"

FUNCTIONS = """
CREATE OR REPLACE FUNCTION stoker_ask(action text, job uuid) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE owner uuid; request bigint;
BEGIN
    SELECT j.tenant_id INTO owner FROM jobs j WHERE j.id = job;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING MESSAGE = 'there is no job ' || job;
    END IF;
    INSERT INTO admin_requests (action, target, requested_by) VALUES (stoker_ask.action, job::text, session_user)
    RETURNING id INTO request;
    INSERT INTO audit_log (action, target, about_tenant, data)
    VALUES ('job.' || stoker_ask.action, job::text, owner, jsonb_build_object('request', request));
    RETURN request;
END $$;
COMMENT ON FUNCTION stoker_ask IS 'The part of stoker_cancel and stoker_retry that is the same.';

CREATE OR REPLACE FUNCTION stoker_cancel(job uuid) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$ SELECT stoker_ask('cancel', job) $$;
COMMENT ON FUNCTION stoker_cancel IS 'Ask for a job to be cancelled; the request''s number, see v_requests.';

CREATE OR REPLACE FUNCTION stoker_retry(job uuid) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$ SELECT stoker_ask('retry', job) $$;
COMMENT ON FUNCTION stoker_retry IS 'Ask for a final job to be submitted again; the request''s number, see v_requests.';

CREATE OR REPLACE FUNCTION stoker_retry_failed(app text, since timestamptz) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT count(stoker_ask('retry', j.id))
    FROM jobs j JOIN app_versions v ON v.id = j.version_id JOIN apps a ON a.id = v.app_id
    WHERE a.name = stoker_retry_failed.app AND j.finished_at >= since AND j.state = 'failed'
$$;
COMMENT ON FUNCTION stoker_retry_failed IS 'Ask for each job of an app that failed since then to be submitted again; how many.';

CREATE OR REPLACE FUNCTION stoker_set_paused(app text, is_paused boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE served uuid;
BEGIN
    SELECT a.id INTO served FROM apps a WHERE a.name = app;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING MESSAGE = 'nobody has published an app ' || app;
    END IF;
    -- As all who change an app: no claim that began before sees the old value after this has committed.
    PERFORM pg_advisory_xact_lock(hashtextextended(served::text, 0));
    UPDATE apps SET paused = is_paused WHERE id = served;
    INSERT INTO audit_log (action, target, data) VALUES (
        CASE WHEN is_paused THEN 'app.pause' ELSE 'app.resume' END, app, jsonb_build_object('paused', is_paused));
END $$;
COMMENT ON FUNCTION stoker_set_paused IS 'The part of stoker_pause and stoker_resume that is the same.';

CREATE OR REPLACE FUNCTION stoker_pause(app text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$ SELECT stoker_set_paused(app, true) $$;
COMMENT ON FUNCTION stoker_pause IS 'Start none of an app''s jobs from now on. What runs goes on, what waits stays.';

CREATE OR REPLACE FUNCTION stoker_resume(app text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$ SELECT stoker_set_paused(app, false) $$;
COMMENT ON FUNCTION stoker_resume IS 'Start an app''s jobs again, within two seconds.';

CREATE OR REPLACE FUNCTION stoker_drain(node text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE nodes SET drain_requested_at = stoker_now() WHERE id = node AND state = 'ready';
    IF NOT FOUND THEN
        RAISE EXCEPTION USING MESSAGE = 'no node is ready that is called ' || node;
    END IF;
    INSERT INTO audit_log (action, target) VALUES ('node.drain', node);
END $$;
COMMENT ON FUNCTION stoker_drain IS 'Have a node take no more jobs, finish or give back what it has, and end.';

CREATE OR REPLACE FUNCTION stoker_redeliver(delivery uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE owner uuid;
BEGIN
    UPDATE webhook_deliveries SET state = 'pending', next_attempt_at = stoker_now(), tries_before = attempts
    WHERE id = delivery RETURNING tenant_id INTO owner;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING MESSAGE = 'there is no delivery ' || delivery;
    END IF;
    INSERT INTO audit_log (action, target, about_tenant) VALUES ('delivery.redeliver', delivery::text, owner);
END $$;
COMMENT ON FUNCTION stoker_redeliver IS 'Send a webhook again now, with all its tries anew.';

REVOKE EXECUTE ON FUNCTION stoker_ask, stoker_cancel, stoker_retry, stoker_retry_failed, stoker_set_paused, stoker_pause,
    stoker_resume, stoker_drain, stoker_redeliver FROM PUBLIC;
"""

VIEWS = """
DROP VIEW IF EXISTS v_deliveries, v_audit, v_requests;
CREATE VIEW v_deliveries AS
SELECT d.id AS delivery_id, d.job_id, a.name AS app, t.name AS tenant,
       lower(coalesce(substring(d.url from '^[^/]*//([^/?#]*)'), '')) AS receiver, d.state, d.attempts, d.created_at,
       extract(epoch FROM d.next_attempt_at - stoker_now())::float8 AS next_in_s, d.last_status, d.last_error,
       d.delivered_at
FROM webhook_deliveries d
JOIN jobs j ON j.id = d.job_id
JOIN app_versions v ON v.id = j.version_id
JOIN apps a ON a.id = v.app_id
JOIN tenants t ON t.id = d.tenant_id;
COMMENT ON VIEW v_deliveries IS 'Webhooks that are owed or were sent. Of their address the host alone is shown.';

CREATE VIEW v_audit AS
SELECT l.id, l.at, l.action, l.target, b.name AS tenant, l.key_id, l.role, o.name AS about_tenant, l.data
FROM audit_log l LEFT JOIN tenants b ON b.id = l.tenant_id LEFT JOIN tenants o ON o.id = l.about_tenant;
COMMENT ON VIEW v_audit IS 'What admins did: with a key, or without one as a role of the database.';

CREATE VIEW v_requests AS
SELECT id, action, target, requested_by, requested_at, done_at, answer FROM admin_requests;
COMMENT ON VIEW v_requests IS 'What admins asked for in SQL, and what came of it.';
"""

# Views first, for the role that reads; who does it may read, too.
ROLES = """
DO $$
BEGIN
    CREATE ROLE stoker_operator NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role stoker_operator was not made: CREATEROLE is not allowed; grant EXECUTE on the functions by hand';
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_readonly') THEN
        GRANT SELECT ON v_deliveries, v_audit, v_requests TO stoker_readonly;
        IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_operator') THEN
            BEGIN
                GRANT stoker_readonly TO stoker_operator;
            EXCEPTION WHEN insufficient_privilege THEN
                RAISE NOTICE 'stoker_operator was not made a member of stoker_readonly: grant it by hand';
            END;
        END IF;
    END IF;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'stoker_operator') THEN
        GRANT EXECUTE ON FUNCTION stoker_cancel, stoker_retry, stoker_retry_failed, stoker_pause, stoker_resume,
            stoker_drain, stoker_redeliver TO stoker_operator;
    END IF;
END $$;
"""

DOWN = """
DROP VIEW v_deliveries, v_audit, v_requests;
DROP FUNCTION stoker_cancel, stoker_retry, stoker_retry_failed, stoker_pause, stoker_resume, stoker_drain, stoker_redeliver,
    stoker_ask, stoker_set_paused;
ALTER TABLE nodes DROP COLUMN drain_requested_at;
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for script in (COLUMN, FUNCTIONS, VIEWS, ROLES):
            run(script)


def downgrade() -> None:
    run(DOWN)


def run(script: str) -> None:
    """Several statements as they stand: no parameters, no escapes."""
    op.get_bind().connection.driver_connection.execute(script)
