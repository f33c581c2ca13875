"""How long each admin view takes on a million jobs.

    python -m benchmarks.views [--jobs 1000000] [--database-url URL] [--repeats 3]

On a private PostgreSQL with durable writes, or on the server of ``--database-url``, in a database of its own. The jobs
are of 60 days, four apps and 1,000 tenants: nine of ten are final, 200 run, the rest waits or is not due. Each with its
head, events, attempts and usage; every second one that has ended has a webhook; admins acted 100,000 times. Each view
is asked as its page in the docs does, a view of jobs for one page of them, and each question of ``stoker sql``.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import psycopg

import migrations
from benchmarks.databases import fill, own_database, server
from stoker import apps
from stoker.cli.questions import QUESTIONS as NAMED
from stoker.database import make_engine
from stoker.manifest import EndpointManifest, Manifest

TENANTS, APPS, RUNNING = 1000, 4, 200
LIMIT_MS = 200.0
FILL = """
INSERT INTO tenants (id, name) SELECT gen_random_uuid(), 't' || n FROM generate_series(1, %(tenants)s) n;
CREATE TEMP TABLE v AS SELECT row_number() OVER () - 1 AS n, id, app_id FROM app_versions;
CREATE TEMP TABLE t AS SELECT row_number() OVER () - 1 AS n, id FROM tenants WHERE name ~ '^t[0-9]+$';
INSERT INTO nodes (id, boot_id, hostname, state, slots, gpus, versions, pid, version, lease_s)
SELECT 'n' || n, gen_random_uuid(), 'host', 'ready', 8, '[]', (SELECT array_agg(id) FROM v), 1, '0', 3600
FROM generate_series(1, 20) n;
INSERT INTO queue_lanes (version_id, uses_gpus, tenant_id, app_id, weight, max_running, has_ready, prio)
SELECT v.id, true, t.id, v.app_id, 1, 2147483647, true, 5 FROM v CROSS JOIN t;
CREATE TEMP TABLE made AS
SELECT uuidv7(-greatest(1 - g / (%(jobs)s * 0.9), 0) * interval '60 days') AS id, v.id AS version_id, v.app_id,
       t.id AS tenant_id,
       now() - greatest(1 - g / (%(jobs)s * 0.9), 0) * interval '60 days' AS at, g AS n,
       CASE WHEN g > %(jobs)s - %(running)s THEN 'running' WHEN g > %(jobs)s * 0.92 THEN 'queued'
            WHEN g > %(jobs)s * 0.9 THEN 'scheduled' WHEN g %% 20 = 0 THEN 'failed' WHEN g %% 50 = 1 THEN 'cancelled'
            ELSE 'succeeded' END AS state
FROM generate_series(1, %(jobs)s) g JOIN v ON v.n = g %% %(apps)s JOIN t ON t.n = (g / %(apps)s) %% %(tenants)s;
INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, result, error, attempt,
                  max_attempts, run_timeout_s, created_at, available_at, started_at, finished_at, tags, webhook_url)
SELECT id, tenant_id, version_id, true, '/', 'inference', state, 5, jsonb_build_object('prompt', repeat('x', 200)),
       CASE state WHEN 'succeeded' THEN '{"at": 1}'::jsonb END,
       CASE state WHEN 'failed' THEN jsonb_build_object('code', 'app_error_' || n %% 7, 'message', 'it broke') END,
       (started)::int, 3, 600, at, CASE state WHEN 'scheduled' THEN now() + interval '1 day' ELSE at END,
       CASE WHEN started THEN at + (n %% 90) * interval '1 second' END,
       CASE WHEN final THEN at + (n %% 90 + n %% 70) * interval '1 second' END, '{}',
       CASE WHEN final AND n %% 2 = 1 THEN 'https://host-' || n %% 200 || '.example/hook' END
FROM (SELECT *, state NOT IN ('queued', 'scheduled') AS started,
             state IN ('succeeded', 'failed', 'cancelled') AS final FROM made) m ORDER BY n;
ALTER TABLE made ADD COLUMN events int;
UPDATE made SET events = CASE WHEN state IN ('queued', 'scheduled') THEN 1 WHEN state = 'running' THEN 2 ELSE 3 END;
INSERT INTO job_heads (job_id, last_seq) SELECT id, events FROM made ORDER BY n;
INSERT INTO job_events (job_id, seq, attempt, kind, data, created_at)
SELECT m.id, s.seq, CASE WHEN s.seq > 1 THEN 1 END, 'state',
       jsonb_build_object('state', CASE s.seq WHEN 1 THEN 'queued' WHEN 2 THEN 'running' ELSE m.state END), m.at
FROM made m JOIN generate_series(1, 3) s (seq) ON s.seq <= m.events ORDER BY m.n;
INSERT INTO job_attempts (job_id, attempt, node_id, boot_id, runner, claimed_at, ended_at, outcome, gpus, gpu_seconds,
                          warm)
SELECT id, 1, 'n' || 1 + n %% 20, gen_random_uuid(), 'r', at + (n %% 90) * interval '1 second',
       CASE WHEN state <> 'running' THEN at + (n %% 90 + n %% 70) * interval '1 second' END,
       CASE WHEN state <> 'running' THEN state END, 1, CASE WHEN state = 'running' THEN 0 ELSE n %% 70 END, n %% 9 > 0
FROM made WHERE state NOT IN ('queued', 'scheduled') ORDER BY n;
INSERT INTO usage_records (job_id, attempt, tenant_id, app_id, node_id, outcome, gpus, gpu_seconds, warm, started_at,
                           ended_at)
SELECT m.id, 1, m.tenant_id, m.app_id, a.node_id, a.outcome, 1, a.gpu_seconds, a.warm, a.claimed_at, a.ended_at
FROM made m JOIN job_attempts a ON a.job_id = m.id WHERE a.outcome IS NOT NULL ORDER BY m.n;
INSERT INTO job_leases (job_id, attempt, version_id, uses_gpus, tenant_id, node_id, boot_id, runner, expires_at)
SELECT id, 1, version_id, true, tenant_id, 'n' || 1 + n %% 20, gen_random_uuid(), 'r', now() + interval '1 hour'
FROM made WHERE state = 'running';
UPDATE queue_lanes l SET running = c.n
FROM (SELECT version_id, tenant_id, count(*) AS n FROM job_leases GROUP BY 1, 2) c
WHERE c.version_id = l.version_id AND c.tenant_id = l.tenant_id;
INSERT INTO job_children (child_id, parent_id, root_id, depth, name, generation)
SELECT c.id, p.id, p.id, 1, 'child', 1 FROM made c JOIN made p ON p.n = c.n - 1 WHERE c.n %% 100 = 0;
INSERT INTO webhook_deliveries (id, job_id, tenant_id, url, state, attempts, next_attempt_at, last_status, last_error,
                                created_at, delivered_at)
SELECT uuidv7(at - now()), m.id, m.tenant_id, j.webhook_url, w.state, w.tries,
       CASE w.state WHEN 'pending' THEN now() + interval '1 hour' END,
       CASE w.state WHEN 'delivered' THEN 200 ELSE 503 END,
       CASE w.state WHEN 'delivered' THEN NULL ELSE 'answered 503' END, at,
       CASE w.state WHEN 'delivered' THEN at + interval '200 seconds' END
FROM made m JOIN jobs j USING (id), LATERAL (
  SELECT CASE WHEN n > %(jobs)s * 0.89 THEN 'pending' WHEN n %% 100 = 1 THEN 'failed' ELSE 'delivered' END,
         CASE WHEN n > %(jobs)s * 0.89 THEN 3 WHEN n %% 100 = 1 THEN 10 ELSE 1 END) w (state, tries)
WHERE j.webhook_url IS NOT NULL ORDER BY n;
INSERT INTO delivery_attempts (delivery_id, attempt, sent_at, status, duration_s, answer)
SELECT d.id, s.n, d.created_at, d.last_status, 0.1, 'ok'
FROM webhook_deliveries d JOIN generate_series(1, 10) s (n) ON s.n <= d.attempts;
INSERT INTO audit_log (at, tenant_id, key_id, action, target, role, about_tenant)
SELECT at, tenant_id, 'sk_bench', 'job.cancel', id::text, 'stoker', tenant_id FROM made WHERE n %% 10 = 0 ORDER BY n;
INSERT INTO admin_requests (action, target, requested_by, requested_at, done_at, answer)
SELECT 'cancel', id::text, 'stoker', at, at, 'cancelled' FROM made WHERE n %% 10 = 0 ORDER BY n;
DROP TABLE made, v, t
"""
A_JOB = "SELECT id FROM jobs WHERE state = 'failed' ORDER BY id DESC OFFSET 100 LIMIT 1"
A_DELIVERY = "SELECT job_id FROM webhook_deliveries WHERE state = 'failed' ORDER BY id DESC OFFSET 100 LIMIT 1"
A_TARGET = "SELECT target FROM audit_log ORDER BY id DESC OFFSET 100 LIMIT 1"
A_TENANT = "SELECT about_tenant FROM v_audit ORDER BY id DESC OFFSET 100 LIMIT 1"
A_ROOT = "SELECT root_id FROM job_children ORDER BY root_id DESC OFFSET 100 LIMIT 1"
QUESTIONS = {
    "v_queue_depth": "SELECT * FROM v_queue_depth ORDER BY oldest_wait_s DESC NULLS LAST",
    "v_queue_positions, of a tenant": "SELECT * FROM v_queue_positions WHERE tenant = 't7'",
    "v_queue_positions, all": "SELECT * FROM v_queue_positions",
    "v_jobs, one": "SELECT * FROM v_jobs WHERE id = :job",
    "v_jobs, by a lease": "SELECT * FROM v_jobs WHERE node_id IS NOT NULL ORDER BY ran_s DESC",
    "v_jobs, by the state running": "SELECT * FROM v_jobs WHERE state = 'running' ORDER BY ran_s DESC",
    "v_jobs, newest 50": "SELECT * FROM v_jobs ORDER BY id DESC LIMIT 50",
    "v_jobs, newest 50 of a tenant": "SELECT * FROM v_jobs WHERE tenant = 't7' ORDER BY id DESC LIMIT 50",
    "v_jobs, newest 50 failed": "SELECT * FROM v_jobs WHERE state = 'failed' ORDER BY id DESC LIMIT 50",
    "v_attempts, of a job": "SELECT * FROM v_attempts WHERE job_id = :job ORDER BY attempt",
    "v_job_children, of a root": "SELECT * FROM v_job_children WHERE root_id = :root",
    "v_job_trees, of a root": "SELECT * FROM v_job_trees WHERE root_id = :root",
    "v_job_trees, all": "SELECT * FROM v_job_trees",
    "v_nodes": "SELECT * FROM v_nodes",
    "v_stuck_jobs": "SELECT * FROM v_stuck_jobs",
    "v_failures": "SELECT * FROM v_failures LIMIT 20",
    "v_queue_wait, a day": "SELECT * FROM v_queue_wait WHERE hour > now() - interval '1 day'",
    "v_queue_wait, all": "SELECT * FROM v_queue_wait",
    "v_throughput_hourly": "SELECT * FROM v_throughput_hourly",
    "v_gpu_seconds, this month": "SELECT * FROM v_gpu_seconds WHERE day >= date_trunc('month', now())",
    "v_gpu_seconds, all": "SELECT * FROM v_gpu_seconds",
    "v_usage, a week": "SELECT * FROM v_usage WHERE day > now() - interval '7 days'",
    "v_usage": "SELECT * FROM v_usage",
    "v_deliveries, of a job": "SELECT * FROM v_deliveries WHERE job_id = :delivered",
    "v_deliveries, not delivered": "SELECT * FROM v_deliveries WHERE state <> 'delivered'",
    "v_deliveries, pending": "SELECT * FROM v_deliveries WHERE state = 'pending' ORDER BY next_in_s LIMIT 50",
    "v_deliveries, newest 50": "SELECT * FROM v_deliveries ORDER BY delivery_id DESC LIMIT 50",
    "v_deliveries, newest 50 of a tenant": (
        "SELECT * FROM v_deliveries WHERE tenant = 't7' ORDER BY delivery_id DESC LIMIT 50"
    ),
    "v_audit, newest 50": "SELECT * FROM v_audit ORDER BY id DESC LIMIT 50",
    "v_audit, of a target": "SELECT * FROM v_audit WHERE target = :target ORDER BY id DESC",
    "v_audit, about a tenant": "SELECT * FROM v_audit WHERE about_tenant = :acted ORDER BY id DESC LIMIT 50",
    "v_requests, newest 50": "SELECT * FROM v_requests ORDER BY id DESC LIMIT 50",
    "v_requests, open": "SELECT * FROM v_requests WHERE done_at IS NULL",
    "v_invariants": "SELECT * FROM v_invariants",
} | {f"stoker sql {name}": statement.strip() for name, statement in NAMED.items()}
SLOWER = {
    "v_invariants",
    "v_usage",
    "v_jobs, by the state running",
    "v_queue_positions, all",
    "v_gpu_seconds, this month",
    "v_gpu_seconds, all",
    "v_job_trees, all",
    "stoker sql invariants",
}
"""Said to be slower in the docs: they read whole tables."""


def main() -> int:
    """Fill and ask; 1 if a view that is not said to be slow is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--database-url")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--explain", action="store_true", help="show the plans of those over the limit")
    options = parser.parse_args()
    with server(options.database_url) as server_url, own_database(server_url) as url:
        began = time.monotonic()
        prepare(url, options.jobs)
        print(f"{options.jobs:,} jobs, made in {time.monotonic() - began:.0f} s; median of {options.repeats}, ms")
        return int(measure(url, options.repeats, explains=options.explain) > 0)


def measure(url: str, repeats: int, *, explains: bool) -> int:
    """Ask everything; how many are slow that are not said to be."""
    slow = 0
    with psycopg.connect(url, autocommit=True) as connection:
        samples = {
            f":{name}": f"'{connection.execute(which.encode()).fetchall()[0][0]}'"
            for name, which in {
                "job": A_JOB,
                "root": A_ROOT,
                "delivered": A_DELIVERY,
                "target": A_TARGET,
                "acted": A_TENANT,
            }.items()
        }
        for name, asked in QUESTIONS.items():
            question = asked
            for place, value in samples.items():
                question = question.replace(place, value)
            taken, rows = ask(connection, question, repeats)
            said = "said to be slower" if name in SLOWER else "met" if taken <= LIMIT_MS else "MISSED"
            slow += said == "MISSED"
            print(f"  {name:36} {taken:9.1f} ms {rows:>8,} rows  {said}", flush=True)
            if explains and taken > LIMIT_MS:
                for (line,) in connection.execute(b"EXPLAIN (ANALYZE, BUFFERS) " + question.encode()):
                    print(f"      {line}")
    return slow


def ask(connection: psycopg.Connection, question: str, repeats: int) -> tuple[float, int]:
    """The median of ms, and how many rows came."""
    taken, rows = [], 0
    for _ in range(repeats):
        began = time.perf_counter()
        rows = len(connection.execute(question.encode()).fetchall())
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken), rows


def prepare(url: str, jobs: int) -> None:
    """Migrate and fill."""
    migrations.upgrade(url)
    asyncio.run(_publish(url))
    fill(url, FILL, {"tenants": TENANTS, "apps": APPS, "running": RUNNING, "jobs": jobs})


async def _publish(url: str) -> None:
    db = make_engine(url, application_name="bench")
    limits = EndpointManifest("/", "inference", {}, {}, True, 60, None, None, 1, "")
    for number in range(APPS):
        await apps.publish(db, Manifest(f"bench/app-{number}", "", "", 1, (limits,)))
    await db.dispose()


if __name__ == "__main__":
    raise SystemExit(main())
