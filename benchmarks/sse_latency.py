"""How long an event takes from its publisher to a client of the stream.

Starts real engines and ``python -m api`` as a process, publishes progress and commits rows at a steady pace, and reads
them over HTTP in this process. A row's time includes its commit; progress that a newer row overtakes may be dropped.
``--streams`` more clients follow other jobs at the same time.

    python benchmarks/sse_latency.py --events 500 --pace 100 --streams 50
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx2

import migrations
from stoker import apps, jobs, keys, nodes
from stoker.bus import Bus
from stoker.database import make_engine
from stoker.events import Event, EventId, EventKind
from stoker.jobs import ClaimRequest, NewJob, QueueKey, Succeeded, Usage
from stoker.local.engines import Engines, start_engines
from stoker.manifest import EndpointManifest, Manifest
from stoker.nodes import NodeInfo


@asynccontextmanager
async def running_api(engines: Engines) -> AsyncIterator[str]:
    """The API's address."""
    reader, writer = os.pipe()
    environment = {**os.environ, **engines.environment(), "STOKER_PORT": "0", "STOKER_READY_FD": str(writer)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", env=environment, pass_fds=[writer], stderr=asyncio.subprocess.DEVNULL
    )
    os.close(writer)
    try:
        yield json.loads(await asyncio.to_thread(os.fdopen(reader).readline))["url"]
    finally:
        process.terminate()
        await process.wait()


async def measure(engines: Engines, *, count: int, pace: float, streams: int) -> dict[str, list[float]]:
    """Seconds from publish to client, of progress and of rows."""
    db, bus = make_engine(engines.database_url, application_name="benchmark"), Bus(engines.redis_url)
    endpoint = EndpointManifest("/", "inference", {"type": "object"}, {}, False, 3600, None, None, 1, "")
    version = await apps.publish(db, Manifest("bench/sse", "", "", 0, (endpoint,)))
    key = await keys.create(db, scopes=frozenset({"run"}))
    boot = uuid4()
    await nodes.register(db, NodeInfo("bench", boot, "bench", 1, [], [version.id], os.getpid(), "0"))
    new = NewJob(tenant_id=key.tenant_id, version=version, endpoint="/", input={})
    for _ in range(streams + 1):
        await jobs.submit(db, new)
    claim = await jobs.claim(db, ClaimRequest("bench", boot, (QueueKey(version.id, False),), "bench", 3600))
    assert claim is not None
    waiting = [(await jobs.submit(db, new)).job_id for _ in range(streams)]
    took: dict[str, list[float]] = {"progress": [], "log": []}

    async with running_api(engines) as url, AsyncExitStack() as stack:
        limits = httpx2.Limits(max_connections=streams + 10)
        headers = {"authorization": f"Key {key.key}"}
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits)
        )
        for job_id in waiting:
            await stack.enter_async_context(http.stream("GET", f"/v1/jobs/{job_id}/events"))
        answer = await stack.enter_async_context(http.stream("GET", f"/v1/jobs/{claim.job_id}/events"))

        async def read() -> None:
            kind = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and kind in took:
                    took[kind].append(time.time() - json.loads(value)["sent_at"])

        reading = asyncio.create_task(read())
        seq = claim.seq
        for number in range(count):
            await asyncio.sleep(1 / pace)
            data = {"step": number, "sent_at": time.time()}
            event = Event(EventId(seq, claim.attempt, number + 1), EventKind.PROGRESS, data, datetime.now(UTC))
            await bus.progress(claim.job_id, event)
            await asyncio.sleep(1 / pace)
            log = {"message": "x", "sent_at": time.time()}
            seq = await jobs.append_events(db, claim.lease, [(EventKind.LOG, log)])
            await bus.wake(claim.job_id, seq)
        done = await jobs.finish(db, claim.lease, Succeeded({}), Usage())
        await bus.wake(claim.job_id, done.seq)
        await reading
    await bus.close()
    await db.dispose()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--pace", type=float, default=100.0, help="events a second")
    parser.add_argument("--streams", type=int, default=0, help="other open streams")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="stoker-bench-") as folder, start_engines(Path(folder) / "data") as engines:
        migrations.upgrade(engines.database_url)
        took = asyncio.run(measure(engines, count=given.events, pace=given.pace, streams=given.streams))
    for kind, seconds in took.items():
        cuts = statistics.quantiles(seconds, n=100)
        print(
            f"{kind:9} n={len(seconds)} p50 {cuts[49] * 1000:.1f} ms  p99 {cuts[98] * 1000:.1f} ms"
            f"  max {max(seconds) * 1000:.1f} ms"
        )


if __name__ == "__main__":
    main()
