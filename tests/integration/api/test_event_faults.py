"""Event streams while something is wrong: Redis gone or emptied, a slow client, replicas, a server that stops."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx2
import psycopg
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from api.hub import Hub
from api.stream import JobStream
from stoker import job_queries, jobs
from stoker.bus import Bus
from stoker.database import driver_url
from stoker.events import Event, EventId, EventKind
from stoker.local.engines import Engines
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.patience import waiting_for
from tests.support.sse import events, named, rest

pytestmark = pytest.mark.anyio

NOWHERE = "redis://127.0.0.1:1/0"
"""Nothing listens on port 1."""


async def until_waiting(database_url: str, sessions: int) -> None:
    """Return once so many sessions of this database wait for another one's lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    connecting = psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with asyncio.timeout(20), await connecting as watching:
        while await (await watching.execute(waits)).fetchone() != (sessions,):
            pass


async def submit(http: httpx2.AsyncClient, app: str) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


async def test_a_client_may_go_on_at_another_replica(
    engines: Engines, database_url: str, http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    path = f"/v1/jobs/{job_id}/events"
    async with (
        running_api(api_settings(engines, database_url)) as other,
        httpx2.AsyncClient(base_url=other.url, headers=http.headers) as elsewhere,
    ):
        async with events(http, path) as here_raw, events(elsewhere, path) as there_raw:
            here, there = named(here_raw), named(there_raw)
            both = [await anext(here), await anext(there)]
            claim = await node.claim()
            both += [await anext(here), await anext(there)]
            step = await node.progress(claim, claim.seq, 1)
            both += [await anext(here), await anext(there)]
        await node.log(claim, "unheard")
        await node.succeed(claim, {"answer": 42})
        async with events(elsewhere, path, headers={"last-event-id": str(step)}) as raw:
            seen = await rest(raw)

    assert [frame.event for frame in both] == ["state"] * 4 + ["progress"] * 2
    assert [frame.event for frame in seen] == ["log", "state"]
    assert seen[-1].data["result"] == {"answer": 42}


async def test_losing_all_of_redis_loses_no_row(
    http: httpx2.AsyncClient, node: ActingNode, app: str, engines: Engines
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        seen = [await anext(stream), await anext(stream)]
        await node.progress(claim, claim.seq, 1)
        seen.append(await anext(stream))
        async with Redis.from_url(engines.redis_url) as redis:
            await redis.flushall()
            await redis.client_kill_filter(_type="pubsub")
        await node.log(claim, "after the flush")
        await node.succeed(claim, {"answer": 42})
        seen += await rest(stream)

    rows = [EventId.parse(frame.id or "").seq for frame in seen if frame.event != "progress"]
    assert rows == [1, 2, 3, 4]


async def test_progress_said_while_the_subscription_was_cut_is_caught_up(
    http: httpx2.AsyncClient, node: ActingNode, app: str, engines: Engines
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        await anext(stream)
        await anext(stream)
        async with Redis.from_url(engines.redis_url) as redis:
            await redis.client_kill_filter(_type="pubsub")
        said = [await node.progress(claim, claim.seq, step) for step in range(1, 6)]
        seen = [await anext(stream) for _ in said]

    assert [frame.id for frame in seen] == [str(event_id) for event_id in said]


async def test_without_redis_jobs_are_accepted_and_streams_read_postgres(
    engines: Engines, database_url: str, http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    settings = api_settings(engines, database_url, redis_url=NOWHERE)
    async with (
        running_api(settings) as lonely,
        httpx2.AsyncClient(base_url=lonely.url, headers=http.headers, timeout=20) as client,
    ):
        job_id = await submit(client, app)
        ready = await client.get("/readyz")
        async with events(client, f"/v1/jobs/{job_id}/events") as raw:
            stream = named(raw)
            seen = [await anext(stream)]
            claim = await node.claim()
            seen.append(await anext(stream))
            await node.succeed(claim, {"answer": 42})
            seen += await rest(stream)

    assert [frame.data["state"] for frame in seen] == ["queued", "running", "succeeded"]
    assert ready.status_code == 200
    assert ready.json()["parts"] == {"postgres": "ok", "redis": "unreachable", "storage": "ok"}


async def test_a_redis_that_never_answers_holds_nobody_up(
    engines: Engines, database_url: str, http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.Event().wait(), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    settings = api_settings(engines, database_url, redis_url=f"redis://127.0.0.1:{port}/0")
    async with (
        running_api(settings) as hampered,
        httpx2.AsyncClient(base_url=hampered.url, headers=http.headers, timeout=20) as client,
    ):
        job_ids = [await submit(client, app) for _ in range(5)]
        await node.succeed(await node.claim(), {"answer": 42})
        async with events(client, f"/v1/jobs/{job_ids[0]}/events") as raw:
            seen = await rest(raw)
    silent.close()

    assert [frame.data["state"] for frame in seen] == ["queued", "running", "succeeded"]


async def test_a_job_that_ends_right_after_it_was_read_is_seen_to_its_end(
    engines: Engines,
    database_url: str,
    http: httpx2.AsyncClient,
    node: ActingNode,
    app: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()
    read_rows = job_queries.events_after

    async def end_the_job_then_answer(*args: object) -> list[Event]:
        rows = await read_rows(*args)  # type: ignore[arg-type]  # handed through
        monkeypatch.setattr(job_queries, "events_after", read_rows)
        await node.succeed(claim, {})
        return rows

    monkeypatch.setattr(job_queries, "events_after", end_the_job_then_answer)
    # Nobody looks at Postgres by itself here: only a subscription made before the reading can tell of the end.
    settings = api_settings(engines, database_url, look_s=3600)
    async with (
        running_api(settings) as patient,
        httpx2.AsyncClient(base_url=patient.url, headers=http.headers, timeout=20) as client,
        events(client, f"/v1/jobs/{job_id}/events") as raw,
    ):
        seen = await rest(raw)

    assert [frame.data["state"] for frame in seen] == ["queued", "running", "succeeded"]


async def test_a_message_that_makes_no_sense_breaks_no_stream(
    http: httpx2.AsyncClient, node: ActingNode, app: str, engines: Engines
) -> None:
    job_id = await submit(http, app)

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        await anext(stream)
        async with Redis.from_url(engines.redis_url) as redis:
            for nonsense in (b"\xff", b'{"event": 1}', b'{"event": {"id": "x"}}', b"[]"):
                assert await redis.publish(f"stoker:job:{job_id}", nonsense) == 1
        claim = await node.claim()
        running = await anext(stream)
        step = await node.progress(claim, claim.seq, 1)
        progress = await anext(stream)

    assert running.data["state"] == "running"
    assert progress.id == str(step)


async def test_a_row_whose_wake_up_was_lost_is_found_by_looking(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    node.bus = Bus(NOWHERE)

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        await anext(stream)
        await node.succeed(await node.claim(), {})
        seen = await rest(stream)

    assert [frame.data["state"] for frame in seen] == ["running", "succeeded"]
    await node.bus.close()


async def test_a_stream_outlives_lost_database_connections(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        await anext(stream)
        await anext(stream)
        async with db.connect() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        await node.succeed(claim, {"answer": 42})
        seen = await rest(stream)

    assert [frame.data["state"] for frame in seen] == ["succeeded"]


async def test_a_slow_client_misses_no_row_and_delays_nobody(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()
    path = f"/v1/jobs/{job_id}/events"

    async with events(http, path) as slow_raw, events(http, path) as quick_raw:
        slow, quick = named(slow_raw), named(quick_raw)
        first = await anext(slow)
        # Far more than the sockets on the way hold: the server must stop sending to who does not read.
        for number in range(30):
            logs = [(EventKind.LOG, {"message": "x" * 20_000})] * 10
            seq = await jobs.append_events(node.db, claim.lease, logs)
            await node.bus.wake(claim.job_id, seq)
            await node.progress(claim, seq, number)
        await node.succeed(claim, {"answer": 42})
        quick_seen = await rest(quick)
        slow_seen = [first, *await rest(slow)]

    for seen in (quick_seen, slow_seen):
        ids = [EventId.parse(frame.id or "") for frame in seen]
        assert ids == sorted(set(ids))
        assert [event_id.seq for event_id in ids if event_id.n == 0] == list(range(1, 304))
        assert seen[-1].data["result"] == {"answer": 42}


async def test_stopping_ends_open_streams_with_a_hint_to_come_back(
    engines: Engines, database_url: str, http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    async with (
        running_api(api_settings(engines, database_url)) as other,
        httpx2.AsyncClient(base_url=other.url, headers=http.headers) as client,
        events(client, f"/v1/jobs/{job_id}/events") as stream,
    ):
        seen = [await anext(stream), await anext(stream)]
        other.server.should_exit = True
        seen += [frame async for frame in stream]

    assert [(frame.event, frame.retry) for frame in seen] == [(None, 1000), ("state", None), (None, 500)]


async def test_a_stream_that_is_sending_when_the_server_stops_ends_as_soon_as_it_has_sent(
    api: RunningApi, http: httpx2.AsyncClient, node: ActingNode
) -> None:
    job_id = await submit(http, node.version.app)
    # Nobody wakes it: it stops at a moment at which it does not wait.
    settings, stopping = api.here.settings.model_copy(update={"ping_s": 3600.0}), asyncio.Event()
    here = replace(api.here, settings=settings, stopping=stopping)
    body = JobStream(here, await job_queries.get(here.db, UUID(job_id), None), EventId(0), api.url).body()

    chunks = [await anext(body), await anext(body)]
    stopping.set()
    async with waiting_for("the stream's end", 20):
        chunks += [chunk async for chunk in body]

    assert [chunks[0], *chunks[2:]] == [b"retry: 1000\n\n", b"retry: 500\n\n"]


async def test_a_process_with_an_open_stream_obeys_sigterm(
    engines: Engines, database_url: str, http: httpx2.AsyncClient, node: ActingNode, app: str, tmp_path: Path
) -> None:
    job_id = await submit(http, app)
    reader, writer = os.pipe()
    environment = {**os.environ, **engines.environment(), "DATABASE_URL": database_url, "STOKER_PORT": "0"}
    command = [sys.executable, "-m", "api"]
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, env={**environment, "STOKER_READY_FD": str(writer)}, pass_fds=[writer], stderr=log
        )
    os.close(writer)
    try:
        line = await asyncio.to_thread(os.fdopen(reader).readline)
        url = httpx2.Response(200, text=line).json()["url"]
        async with (
            httpx2.AsyncClient(base_url=url, headers=http.headers) as client,
            events(client, f"/v1/jobs/{job_id}/events") as stream,
        ):
            await anext(named(stream))
            process.send_signal(signal.SIGTERM)
            await rest(stream)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    # The grace for open connections is 10 s; ending by it would have been logged.
    assert code in (0, -signal.SIGTERM), (tmp_path / "log").read_text()
    assert "timeout graceful shutdown exceeded" not in (tmp_path / "log").read_text()


async def test_while_postgres_is_away_the_answer_is_503_with_retry_after(engines: Engines) -> None:
    settings = api_settings(engines, "postgresql://nobody@127.0.0.1:1/nothing")
    async with (
        running_api(settings) as lost,
        httpx2.AsyncClient(base_url=lost.url, headers={"authorization": f"Key sk_000000000000:{'x' * 43}"}) as client,
    ):
        submitted = await client.post("/v1/jobs", json={"app": "acme/echo", "input": {}})
        ready = await client.get("/readyz")
        alive = await client.get("/healthz")
        metrics = await client.get("/metrics")

    assert (submitted.status_code, submitted.json()["code"]) == (503, "unavailable")
    assert int(submitted.headers["retry-after"]) > 0
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert [alive.status_code, metrics.status_code] == [200, 200]


async def test_a_look_that_fails_is_not_the_last_one(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, database_url: str
) -> None:
    job_id = await submit(http, app)
    impatient = create_async_engine(driver_url(database_url), connect_args={"options": "-c lock_timeout=20ms"})
    bus = Bus(NOWHERE)
    async with Hub(bus, impatient, look_s=0.05).running() as hub, hub.follow(UUID(job_id)) as feed:
        async with db.begin() as transaction:
            await transaction.execute(text("LOCK TABLE job_heads"))
            await until_waiting(database_url, 1)
            await until_waiting(database_url, 0)
        feed.take()
        async with asyncio.timeout(20):
            await feed.changed.wait()
    await bus.close()
    await impatient.dispose()
