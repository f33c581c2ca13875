"""Nodes that are drained, in each of the three ways, while clients follow what they run."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest
from sqlalchemy import text

from stoker import apps, keys, nodes
from stoker.local.engines import Engines
from stoker.nodes import NodeInfo
from stoker.states import JobState
from tests.integration.node.conftest import QUICK
from tests.support.api_server import api_settings, running_api
from tests.support.job_world import manifest
from tests.support.nodes import PATIENCE_S, Desk, NodeProcess, eventually, running_node
from tests.support.sse import Frame, events, named

pytestmark = pytest.mark.anyio

APPS = ["tests.apps.well:Echo"]


async def follow(http: httpx2.AsyncClient, path: str, job_id: str) -> list[tuple[int, str]]:
    """The rows of the job, until its last one: their numbers, and what they say."""
    seen = []
    async with events(http, path) as stream:
        async for frame in named(stream):
            row = row_of(frame, job_id)
            if row is not None:
                seen.append(row)
                if row[1] == "succeeded":
                    return seen
    return seen


def row_of(frame: Frame, job_id: str) -> tuple[int, str] | None:
    """A row's number and words; None for progress, and for other jobs of a tenant's stream."""
    if "job_id" in frame.data:
        return (frame.data["seq"], words_of(frame.data["data"])) if frame.data["job_id"] == job_id else None
    seq, _, count = (int(part) for part in str(frame.id).split("."))
    return None if count else (seq, words_of(frame.data))


def words_of(data: dict[str, Any]) -> str:
    return data.get("state") or data.get("message") or ""


async def statuses(http: httpx2.AsyncClient, path: str) -> list[str]:
    """What a client of fal's is told, one after the other."""
    async with http.stream("GET", path) as answer:
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
    return [word for line in lines for word in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED") if f'"{word}"' in line]


async def works_at(desk: Desk, job_id: UUID, attempt: int) -> str:
    """The node of this attempt, once its app is at work."""

    async def look() -> str | None:
        lines = [data["message"] for kind, data in await desk.events(job_id) if kind == "log"]
        return (await desk.get(job_id)).attempts[-1].node_id if lines.count("waiting") == attempt else None

    node_id: str = await eventually(look, lambda: f"attempt {attempt} of {job_id}")
    return node_id


async def test_clients_miss_nothing_of_a_job_whose_nodes_are_drained_one_after_another_and_no_try_is_used_up(
    engines: Engines, database_url: str, desk: Desk, tmp_path: Path
) -> None:
    end, names = tmp_path / "end", ["one", "two", "three"]
    key = (await keys.create(desk.db, tenant="lab", scopes=frozenset({"admin"}))).key

    def node(name: str) -> AbstractContextManager[NodeProcess]:
        (tmp_path / name).mkdir()
        arguments = ["--node-id", name, "--drain-grace-s", "600"]
        return running_node(
            engines, database_url, tmp_path / name, APPS, arguments=arguments, **QUICK, STOKER_LOOK_S="0.2"
        )

    with ExitStack() as stack:
        started = await asyncio.gather(*(asyncio.to_thread(stack.enter_context, node(name)) for name in names))
        running = dict(zip(names, started, strict=True))
        async with (
            running_api(api_settings(engines, database_url)) as api,
            httpx2.AsyncClient(base_url=api.url, headers={"authorization": f"Key {key}"}, timeout=60) as http,
            await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin,
        ):
            body = {"app": "tests/echo", "endpoint": "/wait", "input": {"wait_for": str(end)}, "max_attempts": 1}
            job_id = (await http.post("/v1/jobs", json=body)).json()["id"]
            own = f"/v1/jobs/{job_id}/events"
            followers = [asyncio.create_task(follow(http, path, job_id)) for path in (own, "/v1/events?after=0")]
            of_fal = asyncio.create_task(statuses(http, f"/queue/tests/echo/requests/{job_id}/status/stream"))

            first = await works_at(desk, UUID(job_id), 1)
            asked = await http.post(f"/v1/nodes/{first}/drain")
            await desk.node_is(first, "draining")
            given_back = running[first].ask_to_stop()  # as if its grace were over
            second = await works_at(desk, UUID(job_id), 2)
            await admin.execute("SELECT stoker_drain(%s)", [second])
            await desk.node_is(second, "draining")
            given_back_too = running[second].ask_to_stop()
            third = await works_at(desk, UUID(job_id), 3)
            finishing = running[third].ask_to_stop()
            await desk.node_is(third, "draining")
            late = await desk.submit("tests/echo")
            end.touch()

            followed = [await task for task in followers]
            told = await of_fal
            result = await http.get(f"/v1/jobs/{job_id}")
            for family in (given_back, given_back_too, finishing):
                assert family.have_ended(within_s=PATIENCE_S)

    rows = await desk.events(UUID(job_id))
    assert followed == [[(seq, words_of(data)) for seq, (_, data) in enumerate(rows, 1)]] * 2
    assert [words for _, words in followed[0]].count("waiting") == 3
    assert (told[0] in ("IN_QUEUE", "IN_PROGRESS"), told[-1], told.count("COMPLETED")) == (True, "COMPLETED", 1)
    job = await desk.get(UUID(job_id))
    assert [attempt.outcome for attempt in job.attempts] == ["released", "released", "succeeded"]
    assert {first, second, third} == set(names)
    async with desk.db.connect() as tx:
        used = (await tx.execute(text("SELECT failures, crashes FROM jobs WHERE id = :id"), {"id": job.id})).one()
    assert (job.state, tuple(used), asked.status_code) == (JobState.SUCCEEDED, (0, 0), 202)
    assert result.json()["result"]["text"] == "waited"
    assert [running[name].log.count("drain_requested") for name in (first, second, third)] == [1, 1, 0]
    assert (await desk.get(late)).attempts == ()


async def test_a_node_that_is_started_again_is_not_asked_to_drain_any_more(desk: Desk) -> None:
    version = await apps.publish(desk.db, manifest("tests/nobody"))
    boots = [NodeInfo("n9", uuid4(), "host", 1, [], [version.id], 1, "0") for _ in range(2)]
    await nodes.register(desk.db, boots[0])
    await nodes.request_drain(desk.db, "n9")
    asked = await nodes.is_drain_requested(desk.db, "n9", boots[0].boot_id)

    await nodes.register(desk.db, boots[1])

    assert asked
    assert not await nodes.is_drain_requested(desk.db, "n9", boots[1].boot_id)
