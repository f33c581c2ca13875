"""A key that ends takes with it what was begun with it, at every replica, and nothing of the tenant's other keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.open_keys import LOOK_S
from stoker import keys
from stoker.local.engines import Engines
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.nodes import eventually
from tests.support.tenants import make_client

pytestmark = pytest.mark.anyio

INPUT = {"prompt": "a cat"}
FOLLOWED = ["/v1/events", "/v1/jobs/{job_id}/events", "/queue/{app}/requests/{job_id}/status/stream"]
QUIET = {"ping_s": 3600}
"""Nothing is said that a stream could end by: it must end by itself."""


@pytest.fixture(scope="module")
async def replicas(engines: Engines, database_url: str) -> AsyncIterator[list[RunningApi]]:
    settings = api_settings(engines, database_url, **QUIET)
    async with running_api(settings) as one, running_api(settings) as other:
        yield [one, other]


@pytest.fixture
def api(replicas: list[RunningApi]) -> RunningApi:
    return replicas[0]


@dataclass
class Begun:
    """What is begun with one key: at each replica three streams, a run, and a run's stream."""

    streams: dict[str, list[asyncio.Task[str]]]
    runs: list[asyncio.Task[httpx2.Response]]

    @property
    def all(self) -> list[asyncio.Task[Any]]:
        return [*self.runs, *(task for tasks in self.streams.values() for task in tasks)]


@asynccontextmanager
async def begun(replicas: list[RunningApi], key: str, app: str, job_id: str) -> AsyncIterator[Begun]:
    async with AsyncExitStack() as stack:
        made = Begun({path: [] for path in FOLLOWED}, [])
        for api in replicas:
            client = httpx2.AsyncClient(base_url=api.url, headers={"authorization": f"Key {key}"}, timeout=30)
            http = await stack.enter_async_context(client)
            for path, tasks in made.streams.items():
                opening = http.stream("GET", path.format(app=app, job_id=job_id))
                tasks.append(asyncio.create_task(text_of(await stack.enter_async_context(opening))))
            made.runs += [asyncio.create_task(http.post(f"/run/{app}{end}", json=INPUT)) for end in ("", "/stream")]
        yield made
        for task in made.all:
            task.cancel()


async def text_of(answer: httpx2.Response) -> str:
    return "".join([piece async for piece in answer.aiter_text()])


async def found(db: AsyncEngine, which: str, wanted: int) -> set[str]:
    """The ids of so many jobs, as soon as there are."""

    async def look() -> set[str] | None:
        async with db.connect() as tx:
            ids = set((await tx.execute(text(f"SELECT id::text FROM jobs WHERE {which}"))).scalars())
        return ids if len(ids) == wanted else None

    return await eventually(look, lambda: f"{wanted} jobs with {which}")


async def test_streams_and_runs_end_with_their_key_at_every_replica_though_nothing_happens_and_others_go_on(
    replicas: list[RunningApi], node: ActingNode, app: str, db: AsyncEngine
) -> None:
    revoked, spared = [await make_client(replicas[0], "run", tenant="lab") for _ in range(2)]
    async with revoked.http, spared.http as http:
        job_id = (await http.post("/v1/jobs", json={"app": app, "input": INPUT})).json()["id"]
    followed = await node.claim()

    async with (
        asyncio.timeout(30),
        begun(replicas, revoked.key, app, job_id) as ending,
        begun(replicas, spared.key, app, job_id) as going_on,
    ):
        await found(db, "state = 'queued'", 8)
        runs = [await node.claim() for _ in range(8)]
        await keys.revoke(db, revoked.key.partition(":")[0])
        await asyncio.wait(ending.all)
        stopped = await found(db, "cancel_requested_at IS NOT NULL", 4)
        have_ended = {task.done() for task in going_on.all}

        for run in (followed, *runs):
            await (node.stop(run) if str(run.job_id) in stopped else node.succeed(run, {"answer": 42}))
        refused = [task.result() for task in ending.runs]
        answered = [await task for task in going_on.runs]
        last = [await task for path in FOLLOWED[1:] for task in going_on.streams[path]]

    assert [(answer.status_code, answer.json()["error_type"]) for answer in refused] == [(401, "unauthenticated")] * 4
    assert have_ended == {False}
    assert ["42" in answer.text for answer in answered] == [True] * 4
    assert ["succeeded" in told or "COMPLETED" in told for told in last] == [True] * 4
    assert LOOK_S < 1  # nobody looks seldomer whether a key has ended
