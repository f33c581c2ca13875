"""Streams whose rows cannot be read for a moment: what is told meanwhile waits, and nothing is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from uuid import UUID

import httpx2
import psycopg
import pytest
from redis.asyncio import Redis
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from api.following import ended
from api.relays import ROWS
from stoker import job_queries, jobs
from stoker.errors import NotFound
from stoker.events import Event, EventId, EventKind
from stoker.local.engines import Engines
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.patience import PATIENCE_S, waiting_for
from tests.support.sse import events, named, rest

pytestmark = pytest.mark.anyio


async def submit(http: httpx2.AsyncClient, app: str) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


async def test_progress_waits_for_its_row_when_that_cannot_be_read(
    http: httpx2.AsyncClient, node: ActingNode, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()
    read_rows = job_queries.events_of
    refused = asyncio.Event()

    async def refuse_once(*args: object) -> dict[UUID, list[Event]]:
        monkeypatch.setattr(job_queries, "events_of", read_rows)
        refused.set()
        raise OperationalError("SELECT", {}, psycopg.OperationalError("the connection is lost"))

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        await anext(stream)
        await anext(stream)
        monkeypatch.setattr(job_queries, "events_of", refuse_once)
        seq = await jobs.append_events(node.db, claim.lease, [(EventKind.LOG, {"message": "unread"})])
        step = await node.progress(claim, seq, 1)
        await refused.wait()
        seen = [await anext(stream), await anext(stream)]

    assert [(frame.event, frame.id) for frame in seen] == [("log", f"{seq}.1.0"), ("progress", str(step))]


async def test_a_stream_whose_past_could_not_be_read_leaves_no_row_out(
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
    refused = asyncio.Event()

    async def refuse_once(*args: object) -> list[Event]:
        monkeypatch.setattr(job_queries, "events_after", read_rows)
        refused.set()
        raise OperationalError("SELECT", {}, psycopg.OperationalError("the connection is lost"))

    monkeypatch.setattr(job_queries, "events_after", refuse_once)
    # It does not look again by itself here: only what its relay tells can show it that rows are missing.
    settings = api_settings(engines, database_url, look_s=3600)
    async with (
        running_api(settings) as patient,
        httpx2.AsyncClient(base_url=patient.url, headers=http.headers, timeout=20) as client,
        events(client, f"/v1/jobs/{job_id}/events") as raw,
    ):
        await refused.wait()
        seq = await node.log(claim, "heard")
        stream = named(raw)
        seen = [await anext(stream) for _ in range(seq)]

    assert [EventId.parse(frame.id or "").seq for frame in seen] == list(range(1, seq + 1))


async def test_a_job_whose_rows_cannot_be_read_holds_up_no_other(
    http: httpx2.AsyncClient, node: ActingNode, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread, other = await submit(http, app), await submit(http, app)
    claims = {str(claim.job_id): claim for claim in [await node.claim(), await node.claim()]}
    read_rows = job_queries.events_of
    refused = asyncio.Event()

    async def refuse(db: AsyncEngine, after: Mapping[UUID, int], limit: int) -> Mapping[UUID, list[Event]]:
        if UUID(unread) in after:
            refused.set()
            raise ValueError("there is no such kind of event")
        return await read_rows(db, after, limit)

    async with (
        events(http, f"/v1/jobs/{unread}/events") as unread_raw,
        events(http, f"/v1/jobs/{other}/events") as other_raw,
    ):
        unread_stream, other_stream = named(unread_raw), named(other_raw)
        for stream in (unread_stream, other_stream):
            assert [(await anext(stream)).event for _ in range(2)] == ["state", "state"]
        monkeypatch.setattr(job_queries, "events_of", refuse)
        await node.log(claims[unread], "unread")
        await refused.wait()
        seen = []
        for number in range(3):
            await node.log(claims[other], f"line {number}")
            seen.append((await anext(other_stream)).data["message"])
        monkeypatch.setattr(job_queries, "events_of", read_rows)
        late = await anext(unread_stream)

    assert seen == ["line 0", "line 1", "line 2"]
    assert late.data["message"] == "unread"
    for claim in claims.values():
        await node.succeed(claim, {})


async def test_progress_that_was_kept_and_makes_no_sense_keeps_no_row_from_a_stream(
    http: httpx2.AsyncClient, node: ActingNode, app: str, engines: Engines
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        before = [await anext(stream), await anext(stream)]
        await node.progress(claim, claim.seq, 1)
        before.append(await anext(stream))  # what the stream itself reads of Redis it has read by now
        async with Redis.from_url(engines.redis_url) as redis:
            await redis.xadd(f"stoker:progress:{job_id}", {"event": "{}"})
            await redis.client_kill_filter(_type="pubsub")
        await node.log(claim, "heard")
        row = await anext(stream)
        await node.succeed(claim, {})
        last = await anext(stream)

    assert [frame.event for frame in before] == ["state", "state", "progress"]
    assert [row.data.get("message"), last.data.get("state")] == ["heard", "succeeded"]


async def test_the_end_of_a_job_that_was_deleted_meanwhile_is_told(
    http: httpx2.AsyncClient, node: ActingNode, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()

    async def find_nothing(*_: object) -> None:
        raise NotFound(f"there is no job {job_id}")

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        await anext(stream)
        await anext(stream)
        monkeypatch.setattr(job_queries, "get", find_nothing)
        await node.succeed(claim, {"answer": 42})
        last = await anext(stream)

    assert last.data["result"] == {"answer": 42}


async def test_who_left_while_rows_were_read_takes_no_place_of_who_came_then(
    engines: Engines,
    database_url: str,
    http: httpx2.AsyncClient,
    node: ActingNode,
    app: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = UUID(await submit(http, app))
    claim = await node.claim()
    read_rows = job_queries.events_of
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def wait_and_read(db: AsyncEngine, after: Mapping[UUID, int], limit: int) -> Mapping[UUID, list[Event]]:
        monkeypatch.setattr(job_queries, "events_of", read_rows)
        reading.set()
        await go_on.wait()
        return await read_rows(db, after, limit)

    async with running_api(api_settings(engines, database_url, look_s=3600)) as patient:
        here = patient.here
        monkeypatch.setattr(job_queries, "events_of", wait_and_read)
        before = await job_queries.get(here.db, job_id, None)
        async with here.relays.follow(before):
            seq = await jobs.append_events(node.db, claim.lease, [(EventKind.LOG, {"message": "x"})] * (ROWS + 1))
            await node.bus.wake(job_id, seq)
            await reading.wait()
        now = await job_queries.get(here.db, job_id, None)
        async with here.relays.follow(now) as feed:
            await node.log(claim, "heard")
            await node.progress(claim, seq, 1)
            await feed.wait(PATIENCE_S)
            told = feed.take()  # the wake-up came before it, and what was read first is still under way
            go_on.set()
            await feed.wait(PATIENCE_S)
            told += feed.take()

    assert [each.event.data.get("step") or each.event.data["message"] for each in told] == [1, "heard"]


async def test_who_follows_a_job_that_was_deleted_before_its_end_was_read_does_not_wait_for_ever(
    api: RunningApi, http: httpx2.AsyncClient, node: ActingNode, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()

    async def refuse(*_: object) -> None:
        raise OperationalError("SELECT", {}, psycopg.OperationalError("the connection is lost"))

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        await anext(stream)
        await anext(stream)
        monkeypatch.setattr(job_queries, "events_of", refuse)
        monkeypatch.setattr(job_queries, "events_after", refuse)
        waiting = asyncio.create_task(ended(api.here, claim.job_id))
        await node.succeed(claim, {"answer": 42})
        deleted = await http.delete(f"/v1/jobs/{job_id}")
        monkeypatch.undo()
        left = await rest(stream)
    async with waiting_for("the end of a job that is not there"):
        has_ended = await waiting

    assert deleted.status_code == 204
    assert (left, has_ended) == ([], False)
