"""How long a claim takes as the queue grows.

    python benchmarks/claim.py DATABASE_URL [--rows 1000 100000] [--claims 400]

It makes a database of its own on that server and drops it. The queue belongs to 1,000 tenants. Measured through
``stoker.jobs``, so each figure is a whole transaction with its commit: claim alone, finish with the next claim, submit.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from uuid import UUID, uuid4

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

import migrations
from stoker import apps, jobs
from stoker.database import make_engine
from stoker.job_values import ClaimRequest, NewJob, QueueKey, Succeeded, Usage
from stoker.manifest import EndpointManifest, Manifest

TENANTS = 1000
FILL = """
INSERT INTO tenants (id, name)
SELECT gen_random_uuid(), 't' || n FROM generate_series(1, %(tenants)s) n ON CONFLICT DO NOTHING;
INSERT INTO queue_lanes (version_id, uses_gpus, tenant_id, app_id, weight, max_running, has_ready, prio)
SELECT v.id, true, t.id, v.app_id, 1, t.max_running, true, 5 FROM app_versions v, tenants t ON CONFLICT DO NOTHING;
WITH job AS (
    INSERT INTO jobs (id, tenant_id, version_id, uses_gpus, endpoint, kind, state, priority, input, max_attempts,
                      run_timeout_s, available_at)
    SELECT gen_random_uuid(), t.id, v.id, true, '/', 'inference', 'queued', 5,
           jsonb_build_object('prompt', repeat('x', 1000)), 1, 60, stoker_now()
    FROM generate_series(1, %(rows)s) n CROSS JOIN app_versions v
    JOIN (SELECT id, row_number() OVER (ORDER BY id) AS i FROM tenants) t ON t.i = 1 + n %% %(tenants)s
    RETURNING id
), head AS (INSERT INTO job_heads (job_id, last_seq) SELECT id, 1 FROM job)
SELECT count(*) FROM job
"""


@contextmanager
def own_database(server_url: str) -> Iterator[str]:
    name = f"bench_{uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield server_url.rsplit("/", 1)[0] + "/" + name
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def fill(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FILL.split(";"):
            text, needed = statement.encode(), {"tenants": TENANTS, "rows": rows}
            connection.execute(text, needed if b"%(" in text else None)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


async def timed(n: int, act: Callable[[], Awaitable[object]]) -> list[float]:
    taken = []
    for _ in range(n):
        began = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def show(what: str, taken: list[float]) -> None:
    taken = sorted(taken)
    p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
    print(f"  {what:<28} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   n {len(taken)}")


async def measure(db: AsyncEngine, url: str, rows: int, claims: int) -> None:
    limits = EndpointManifest("/", "inference", {}, {}, True, 60, None, None, 1, "")
    version = await apps.publish(db, Manifest("bench/claim", "", "", 1, (limits,)))
    fill(url, rows)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT id FROM tenants ORDER BY id").fetchall()
    tenants: list[UUID] = [tenant for (tenant,) in found]
    request = ClaimRequest("bench", uuid4(), (QueueKey(version.id, True), QueueKey(version.id, False)), "r0", 60.0)
    print(f"{rows} queued rows of {TENANTS} tenants")

    await timed(20, lambda: jobs.claim(db, request))
    show("claim", await timed(claims, lambda: jobs.claim(db, request)))
    held = await jobs.claim(db, request)

    async def finish_and_claim() -> None:
        nonlocal held
        assert held is not None
        held = (await jobs.finish(db, held.lease, Succeeded({}), Usage(1.0, 1), then=request)).next

    show("finish + claim, one commit", await timed(claims // 2, finish_and_claim))

    numbers = count()

    async def submit() -> None:
        tenant = tenants[next(numbers) % TENANTS]
        await jobs.submit(db, NewJob(tenant_id=tenant, version=version, endpoint="/", input={"prompt": "x" * 1000}))

    show("submit", await timed(claims, submit))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server_url")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--claims", type=int, default=400)
    options = parser.parse_args()
    for rows in options.rows:
        with own_database(options.server_url) as url:
            migrations.upgrade(url)
            db = make_engine(url, application_name="bench")
            try:
                await measure(db, url, rows, options.claims)
            finally:
                await db.dispose()


if __name__ == "__main__":
    asyncio.run(main())
