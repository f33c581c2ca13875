"""Streams whose rows cannot be read for a moment: what is told meanwhile waits, and nothing is left out."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx2
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from stoker import job_queries, jobs
from stoker.events import Event, EventId, EventKind
from stoker.local.engines import Engines
from tests.support.acting_node import ActingNode
from tests.support.api_server import api_settings, running_api
from tests.support.sse import events, named

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
