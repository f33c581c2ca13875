"""Questions that admins ask of the views, by the names that ``stoker sql`` knows them by.

docs/admin-sql.md has the same, word for word: a test compares the two, and asks each of a database in which there is
something to find.
"""

from __future__ import annotations

QUESTIONS = {
    "waiting": """
SELECT app, tenant, queued, running, oldest_wait_s, live_nodes FROM v_queue_depth ORDER BY oldest_wait_s DESC NULLS LAST
""",
    "running": """
SELECT id, app, node_id, ran_s, lease_left_s, progress FROM v_jobs WHERE node_id IS NOT NULL ORDER BY ran_s DESC
""",
    "stuck": """
SELECT job_id, app, tenant, problem, for_s, node_id FROM v_stuck_jobs ORDER BY for_s DESC
""",
    "lost": """
SELECT node_id, state, heartbeat_age_s, running, apps FROM v_nodes WHERE NOT is_live AND state <> 'stopped'
""",
    "failures": """
SELECT app, error_code, jobs, last_at, sample_job_id, sample_message FROM v_failures ORDER BY jobs DESC LIMIT 20
""",
    "again": """
SELECT app, outcome, error_code, count(*) AS attempts, sum(gpu_seconds) AS gpu_seconds
FROM v_attempts WHERE claimed_at > now() - interval '1 day' AND outcome <> 'succeeded'
GROUP BY app, outcome, error_code ORDER BY attempts DESC
""",
    "waits": """
SELECT app, hour, jobs, p50_s, p99_s FROM v_queue_wait WHERE hour > now() - interval '1 day' ORDER BY hour DESC, app
""",
    "throughput": """
SELECT app, hour, sum(jobs) AS jobs,
       100.0 * coalesce(sum(jobs) FILTER (WHERE state = 'failed'), 0) / sum(jobs) AS failed_percent
FROM v_throughput_hourly GROUP BY app, hour ORDER BY hour DESC, app
""",
    "spent": """
SELECT tenant, sum(gpu_seconds) / 3600 AS gpu_hours,
       100 * sum(wasted_gpu_seconds) / nullif(sum(gpu_seconds), 0) AS wasted_percent
FROM v_gpu_seconds WHERE day >= date_trunc('month', now()) GROUP BY tenant ORDER BY gpu_hours DESC
""",
    "cold": """
SELECT app, sum(cold) AS cold, sum(warm) AS warm, sum(cold_start_s) AS cold_start_s, sum(run_s) AS run_s
FROM v_usage WHERE day > now() - interval '7 days' GROUP BY app ORDER BY cold_start_s DESC NULLS LAST
""",
    "webhooks": """
SELECT tenant, receiver, count(*) FILTER (WHERE state = 'pending') AS pending,
       count(*) FILTER (WHERE state = 'failed') AS failed, max(attempts) AS most_tries,
       max(last_status) AS last_status, max(last_error) AS last_error
FROM v_deliveries WHERE state <> 'delivered' GROUP BY tenant, receiver ORDER BY count(*) DESC
""",
    "acts": """
SELECT at, action, target, coalesce(key_id, role) AS who, about_tenant, data FROM v_audit ORDER BY id DESC LIMIT 50
""",
    "requests": """
SELECT id, action, target, requested_by, requested_at, done_at, answer FROM v_requests ORDER BY id DESC LIMIT 50
""",
    "due": """
SELECT what, waiting, since FROM v_retention ORDER BY what
""",
    "invariants": """
SELECT rule, job_id, detail FROM v_invariants
""",
}
