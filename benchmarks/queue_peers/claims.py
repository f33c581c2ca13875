"""How long a claim takes as queues grow, in the cases in which a plain queue becomes slow.

``plain``: all may be claimed. ``capped``: a tenant at its cap owns nine of ten jobs, the oldest ones. ``future``: half
of the jobs are not due yet, the older half. Each alone and with four claimers at once. A claim is a whole transaction
of ``stoker.jobs`` with its commit.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Sequence
from uuid import uuid4

import migrations
from benchmarks.databases import fill, own_database, timed
from stoker import apps, jobs
from stoker.database import make_engine
from stoker.job_values import ClaimRequest, QueueKey
from stoker.manifest import EndpointManifest, Manifest

TENANTS = 1000
CASES = ("plain", "capped", "future")
CLAIMERS = (1, 4)
WARM_UP = 40
CLAIMABLE = {"plain": 1.0, "capped": 0.1, "future": 0.5}
FILL = """
INSERT INTO tenants (id, name, max_running)
SELECT gen_random_uuid(), 't' || n, CASE WHEN %(case)s = 'capped' AND n = 1 THEN 1 ELSE 2147483647 END
FROM generate_series(1, %(tenants)s) n;
INSERT INTO queue_lanes (version_id, uses_gpus, tenant_id, app_id, weight, max_running, has_ready, prio)
SELECT v.id, true, t.id, v.app_id, 1, t.max_running, true, 5 FROM app_versions v, tenants t;
WITH job AS (
    INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, max_attempts,
                      run_timeout_s, available_at)
    SELECT uuidv7(), t.id, v.id, true, '/', 'inference',
           CASE WHEN %(case)s = 'future' AND n <= %(rows)s / 2 THEN 'scheduled' ELSE 'queued' END, 5,
           jsonb_build_object('prompt', repeat('x', 1000)), 1, 60,
           stoker_now() + CASE WHEN %(case)s = 'future' AND n <= %(rows)s / 2 THEN '1 day' ELSE '0' END::interval
    FROM generate_series(1, %(rows)s) n CROSS JOIN app_versions v
    JOIN (SELECT id, (substr(name, 2))::int AS i FROM tenants WHERE name ~ '^t[0-9]+$') t
      ON t.i = CASE WHEN %(case)s = 'capped' AND n <= %(rows)s * 9 / 10 THEN 1 ELSE 1 + n %% %(tenants)s END
    ORDER BY n
    RETURNING id
), head AS (INSERT INTO job_heads (job_id, last_seq) SELECT id, 1 FROM job)
SELECT count(*) FROM job
"""


def measure(
    server_url: str, sizes: Sequence[int], claims: int, cases: Sequence[str] = CASES
) -> Iterator[tuple[str, int, float, float]]:
    """Yield case and claimers, queued rows, p50 and p99 in ms."""
    for case in cases:
        for rows in sizes:
            with own_database(server_url) as url:
                migrations.upgrade(url)
                for name, p50, p99 in asyncio.run(_measure(url, case, rows, claims)):
                    yield name, rows, p50, p99


async def _measure(url: str, case: str, rows: int, claims: int) -> list[tuple[str, float, float]]:
    db = make_engine(url, application_name="bench")
    try:
        limits = EndpointManifest("/", "inference", {}, {}, True, 60, None, None, 1, "")
        version = await apps.publish(db, Manifest("bench/claim", "", "", 1, (limits,)))
        await asyncio.to_thread(fill, url, FILL, {"tenants": TENANTS, "rows": rows, "case": case})
        boot = uuid4()
        request = ClaimRequest("bench", boot, (QueueKey(version.id, True), QueueKey(version.id, False)), "r0", 600.0)

        async def claim() -> None:
            if await jobs.claim(db, request) is None:
                raise LookupError("nothing was left to claim")

        # A capped tenant's one running job is claimed here at the latest.
        there = int(rows * CLAIMABLE[case])
        await timed(min(WARM_UP, there // 5), claim)
        told = []
        for claimers in CLAIMERS:
            parts = await asyncio.gather(
                *(timed(min(claims // 2, there // 3) // claimers, claim) for _ in range(claimers))
            )
            taken = [each for part in parts for each in part]
            p99 = statistics.quantiles(taken, n=100, method="inclusive")[-1]
            told.append((f"{case}, claimers: {claimers}", statistics.median(taken), p99))
        return told
    finally:
        await db.dispose()
