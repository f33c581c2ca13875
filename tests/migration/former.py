"""A database of the first release (revision 0004) with many jobs, and a node of that release that goes on working.

Its statements have the shape of that release's: they know no column that came later, and announce no event's mark.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg

REVISION = "0004"
BOUND = "1200ms"
"""Longer than the longest wait that an update may cost a statement is on a busy machine, and a tenth of a lease."""

TENANT, APP, VERSION = (UUID(int=n) for n in (1, 2, 3))
LANE = {"tenant": TENANT, "app": APP, "version": VERSION}

FILL = """
INSERT INTO tenants (id, name) VALUES (%(tenant)s, 'former');
INSERT INTO apps (id, name) VALUES (%(app)s, 'former/app');
INSERT INTO app_versions (id, app_id, hash, manifest) VALUES (%(version)s, %(app)s, 'h', '{}');
INSERT INTO queue_lanes (version_id, uses_gpus, tenant_id, app_id, weight, max_running)
VALUES (%(version)s, true, %(tenant)s, %(app)s, 1, 100);
CREATE TEMP TABLE made AS SELECT uuidv7() AS id, n FROM generate_series(1, %(jobs)s) n;
INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, result, attempt,
                  max_attempts, run_timeout_s, available_at, started_at, finished_at)
SELECT id, %(tenant)s, %(version)s, true, '/', 'inference', 'succeeded', 5, '{}', '{}', 2, 3, 60, now(), now(), now()
FROM made;
INSERT INTO job_heads (job_id, last_seq) SELECT id, 1 FROM made;
INSERT INTO job_events (job_id, seq, attempt, kind, data) SELECT id, 1, 2, 'state', '{"state": "succeeded"}' FROM made;
INSERT INTO job_attempts (job_id, attempt, node_id, boot_id, runner, ended_at, outcome, gpus, gpu_seconds, warm, phases,
                          peak_memory_bytes)
SELECT id, 1, 'n', id, 'r', now(), 'lease_lost', 0, 0, NULL, '{}'::jsonb, NULL::bigint FROM made
UNION ALL SELECT id, 2, 'n', id, 'r', now(), 'succeeded', 1, n, true, '{"run": 1}', n FROM made;
INSERT INTO usage_records (job_id, attempt, tenant_id, app_id, node_id, outcome, gpus, gpu_seconds, warm, started_at)
SELECT id, 2, %(tenant)s, %(app)s, 'n', 'succeeded', 1, n, true, now() FROM made
"""

SUBMIT = """
WITH job AS (
    INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, max_attempts,
                      run_timeout_s, available_at)
    VALUES (%(job)s, %(tenant)s, %(version)s, true, '/', 'inference', 'queued', 5, '{}', 3, 60, now())
    RETURNING id, state
), head AS (
    INSERT INTO job_heads (job_id, last_seq) SELECT id, 1 FROM job
), event AS (
    INSERT INTO job_events (job_id, seq, kind, data) SELECT id, 1, 'state', '{"state": "queued"}' FROM job
)
UPDATE queue_lanes SET has_ready = true WHERE version_id = %(version)s
"""
CLAIM = """
WITH job AS (
    UPDATE jobs SET state = 'running', attempt = 1, started_at = now() WHERE id = %(job)s RETURNING *
), served AS (
    UPDATE queue_lanes SET running = running + 1 WHERE version_id = %(version)s
), attempt AS (
    INSERT INTO job_attempts (job_id, attempt, node_id, boot_id, runner) SELECT id, 1, 'n', id, 'r' FROM job
), lease AS (
    INSERT INTO job_leases (job_id, attempt, version_id, uses_gpus, tenant_id, node_id, boot_id, runner, expires_at)
    SELECT id, 1, version_id, true, tenant_id, 'n', id, 'r', now() + interval '15 s' FROM job
), head AS (
    UPDATE job_heads h SET last_seq = last_seq + 1 FROM job j WHERE h.job_id = j.id RETURNING h.job_id, h.last_seq
)
INSERT INTO job_events (job_id, seq, attempt, kind, data)
SELECT job_id, last_seq, 1, 'state', '{"state": "running"}' FROM head
"""
CHILD = """
INSERT INTO job_children (child_id, parent_id, root_id, depth, name, generation)
VALUES (%(job)s, %(parent)s, %(parent)s, %(depth)s, 'child', 1)
"""
RENEW = "UPDATE job_leases SET expires_at = now() + interval '15 s' WHERE node_id = 'n'"
SAY = """
WITH held AS MATERIALIZED (
    SELECT job_id FROM job_leases WHERE job_id = %(job)s FOR KEY SHARE
), head AS (
    UPDATE job_heads h SET last_seq = last_seq + 2 FROM held WHERE h.job_id = held.job_id RETURNING h.job_id, last_seq
)
INSERT INTO job_events (job_id, seq, attempt, kind, data)
SELECT job_id, last_seq - n, 1, 'log', '{}' FROM head, generate_series(0, 1) n
"""
FINISH = """
WITH job AS (
    UPDATE jobs SET state = 'succeeded', result = '{}', finished_at = now() WHERE id = %(job)s RETURNING *
), gone AS (
    DELETE FROM job_leases l USING job j WHERE l.job_id = j.id RETURNING l.job_id
), head AS (
    UPDATE job_heads h SET last_seq = last_seq + 1 FROM gone g WHERE h.job_id = g.job_id RETURNING h.job_id, h.last_seq
), event AS (
    INSERT INTO job_events (job_id, seq, attempt, kind, data)
    SELECT job_id, last_seq, 1, 'state', '{"state": "succeeded"}' FROM head
), tried AS (
    UPDATE job_attempts t SET ended_at = now(), outcome = 'succeeded', gpus = 1, gpu_seconds = 1, warm = true,
                              phases = '{"run": 1}'
    FROM job j WHERE t.job_id = j.id RETURNING t.*
), freed AS (
    UPDATE queue_lanes SET running = running - 1 WHERE version_id = %(version)s
)
INSERT INTO usage_records (job_id, attempt, tenant_id, app_id, node_id, outcome, gpus, gpu_seconds, warm, started_at)
SELECT job_id, attempt, %(tenant)s, %(app)s, node_id, outcome, gpus, gpu_seconds, warm, claimed_at FROM tried
"""


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON usage_records FOR EACH ROW
WHEN (current_setting('application_name') = 'stoker-migrate') EXECUTE FUNCTION slow()
"""


def fill(url: str, jobs: int, *, is_slow: bool = False) -> None:
    """So many jobs that have ended, each after an attempt that was lost, of which that release kept no usage.

    ``is_slow``: what a migration writes takes a millisecond a row, so that a few of them do for the hundreds of
    thousands of a database that has been at work for months.
    """
    with psycopg.connect(url) as connection:
        connection.execute("SET session_replication_role = replica")  # the rows are right by their making
        for statement in FILL.split(";"):
            connection.execute(statement.encode(), {**LANE, "jobs": jobs} if "%(" in statement else None)
        if is_slow:
            connection.execute(SLOW)


def work(url: str, is_enough: Callable[[], bool]) -> UUID:
    """Submit, claim, renew, write events and finish, one job after the other, until it is enough; the last job's id.

    Raises:
        psycopg.errors.LockNotAvailable: a statement had to wait for a lock longer than BOUND.
    """
    with psycopg.connect(url, autocommit=True) as node:
        node.execute(f"SET lock_timeout = '{BOUND}'")
        while True:
            is_last, job = is_enough(), uuid4()
            for statement in (SUBMIT, CLAIM, RENEW, SAY, FINISH):
                node.execute(statement.encode(), {**LANE, "job": job} if "%(" in statement else None)
            if is_last:
                return job


def submit_child(url: str, parent: UUID, depth: int, *, ends: bool) -> UUID:
    """A job that ``parent`` called ``depth`` deep, after 0008: it waits, or has ended and nobody was told."""
    job = uuid4()
    with psycopg.connect(url) as connection:
        for statement in (SUBMIT, CHILD, *((CLAIM, FINISH) if ends else ())):
            connection.execute(statement.encode(), {**LANE, "job": job, "parent": parent, "depth": depth})
    return job
