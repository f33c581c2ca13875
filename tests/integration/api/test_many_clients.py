"""Many clients of event streams: what they share, replicas that end under them, and proxies between."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from uuid import UUID

import httpx2
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.api import run
from benchmarks.api_load.listeners import Listeners
from benchmarks.api_load.servers import serving
from benchmarks.api_load.settings import QUICK
from stoker import job_queries
from stoker.events import Event
from stoker.local.engines import Engines
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.buffering_proxy import BUFFER_BYTES, buffering_proxy
from tests.support.sse import Frame, events, named, rest
from tests.support.tenants import Tenant

pytestmark = pytest.mark.anyio

JOBS, EACH = 10, 6
SILENCE_S = 20.0

Ending = Callable[[Engines, str], AbstractAsyncContextManager[tuple[int, Callable[[], Awaitable[None]]]]]


def port_of(api: RunningApi) -> int:
    return int(api.url.rpartition(":")[2])


async def submit(http: httpx2.AsyncClient, app: str) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


async def test_the_rows_of_a_job_are_read_once_for_all_its_clients_over_one_subscription(
    engines: Engines, database_url: str, caller: Tenant, node: ActingNode, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await submit(caller.http, app)
    read, reads = job_queries.events_of, list[dict[UUID, int]]()

    async def count(db: AsyncEngine, after: Mapping[UUID, int], limit: int) -> Mapping[UUID, list[Event]]:
        reads.append(dict(after))
        return await read(db, after, limit)

    monkeypatch.setattr(job_queries, "events_of", count)
    # Nobody looks at Postgres by itself here.
    async with (
        running_api(api_settings(engines, database_url, look_s=3600)) as alone,
        httpx2.AsyncClient(base_url=alone.url, headers=caller.http.headers, timeout=20) as http,
        Redis.from_url(engines.redis_url) as redis,
        AsyncExitStack() as stack,
    ):
        subscribed = []
        streams = []
        for _ in range(EACH):
            streams.append(named(await stack.enter_async_context(events(http, f"/v1/jobs/{job_id}/events"))))
            await anext(streams[-1])
            subscribed.append({each["id"] for each in await redis.client_list(_type="pubsub")})
        claim = await node.claim()
        for stream in streams:
            await anext(stream)
        reads.clear()
        await node.log(claim, "one line")
        lines = [await anext(stream) for stream in streams]

    assert [line.data["message"] for line in lines] == ["one line"] * EACH
    assert reads == [{UUID(job_id): 2}]
    assert subscribed[-1] <= subscribed[0]


@asynccontextmanager
async def killed(engines: Engines, database_url: str) -> AsyncIterator[tuple[int, Callable[[], Awaitable[None]]]]:
    """The port of a replica that is a process of its own, and its end without a word."""
    async with serving({**engines.environment(), "DATABASE_URL": database_url}) as replica:
        yield replica.port, lambda: replica.end(signal.SIGKILL)


@asynccontextmanager
async def stopped(engines: Engines, database_url: str) -> AsyncIterator[tuple[int, Callable[[], Awaitable[None]]]]:
    """The port of a replica, and its end as a new version is rolled out."""
    async with AsyncExitStack() as replica:
        running = await replica.enter_async_context(running_api(api_settings(engines, database_url)))
        yield port_of(running), replica.aclose


@asynccontextmanager
async def restarted(engines: Engines, database_url: str) -> AsyncIterator[tuple[int, Callable[[], Awaitable[None]]]]:
    """The port of the only one there is, and how it ends and begins again."""
    settings = api_settings(engines, database_url)
    async with AsyncExitStack() as replica:
        port = port_of(await replica.enter_async_context(running_api(settings)))

        async def again() -> None:
            await replica.aclose()
            await replica.enter_async_context(running_api(settings, port=port))

        yield port, again


@pytest.mark.parametrize("ending", [killed, stopped, restarted])
async def test_clients_of_a_replica_that_ends_go_on_where_there_is_one_and_miss_nothing(
    engines: Engines, database_url: str, api: RunningApi, caller: Tenant, node: ActingNode, app: str, ending: Ending
) -> None:
    claims = []
    for _ in range(JOBS):
        await submit(caller.http, app)
        claims.append(await node.claim())

    async def say(line: int) -> None:
        for claim in claims:
            seq = await node.log(claim, f"line {line}")
            await node.progress(claim, seq, line)

    async with ending(engines, database_url) as (port, end):
        ports = [port] if ending is restarted else [port, port_of(api)]
        listeners = Listeners(ports, caller.http.headers["authorization"].removeprefix("Key "))
        await listeners.open([str(claim.job_id) for claim in claims], EACH)
        await say(1)
        await end()
        await say(2)
        for claim in claims:
            await node.succeed(claim, {"of": str(claim.job_id)})
        is_all_here = await listeners.until(SILENCE_S, log=2, final=1)

    assert is_all_here
    assert listeners.reconnects == len(listeners.all) == JOBS * EACH
    # queued, running, the lines, succeeded: each row once, in order.
    assert [(each.heard["state"], each.heard["log"]) for each in listeners.all] == [(3, 2)] * len(listeners.all)
    assert listeners.total("out_of_order") == 0


async def test_events_pass_a_buffering_proxy_one_by_one(
    http: httpx2.AsyncClient, api: RunningApi, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    seen: list[Frame] = []
    async with (
        buffering_proxy(port_of(api)) as proxied,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{proxied}", headers=http.headers, timeout=20) as client,
        events(client, f"/v1/jobs/{job_id}/events") as raw,
    ):
        stream = named(raw)
        seen.append(await anext(stream))
        claim = await node.claim()
        seen.append(await anext(stream))
        await node.progress(claim, claim.seq, 1)
        seen.append(await anext(stream))
        await node.succeed(claim, {"answer": 42})
        seen += await rest(stream)

    assert [frame.event for frame in seen] == ["state", "state", "progress", "state"]
    assert sum(len(str(frame)) for frame in seen) < BUFFER_BYTES


async def test_the_benchmark_follows_jobs_as_it_says_and_loses_no_row(engines: Engines, database_url: str) -> None:
    counts = replace(QUICK, jobs=3)

    figures, judged = await run(replace(engines, database_url=database_url), ["streams"], counts)

    assert [
        (verdict.wanted, verdict.value) for verdict in judged if "lost" in verdict.wanted or "twice" in verdict.wanted
    ] == [
        ("rows lost at most 0", 0),
        ("progress lost at most 0", 0),
        ("rows twice or out of order at most 0", 0),
    ]
    assert figures["streams"][0]["rate"] == 2.0 * 3 * QUICK.listeners_a_job
