"""Several API and control replicas at once: whoever follows sees every row, and idle streams cost one statement."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control.deliverer import Deliverer
from api.control.duties import Control
from api.control.loop import run_duties
from stoker.bus import Bus
from stoker.local.engines import Engines
from stoker.queue import Doorbell
from stoker.settings import ControlSettings
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.sse import Frame, events, named, rest
from tests.support.tenants import Tenant

pytestmark = pytest.mark.anyio

JOBS = 12


@pytest.fixture
async def controls(
    engines: Engines, database_url: str, db: AsyncEngine, bus: Bus, storage: Storage
) -> AsyncIterator[list[Control]]:
    wanted = api_settings(engines, database_url).model_dump(include=set(ControlSettings.model_fields))
    settings = ControlSettings.model_validate({**wanted, "reap_s": 0.1})
    doorbell, stopping = Doorbell(engines.redis_url), asyncio.Event()
    deliverer = Deliverer(db, public_url=None, allowed_hosts=frozenset())
    made = [Control(settings, db, bus, doorbell, storage, deliverer) for _ in range(2)]
    working = [asyncio.create_task(run_duties(each.duties(), stopping)) for each in made]
    yield made
    stopping.set()
    await asyncio.gather(*working)
    await deliverer.close()
    await doorbell.close()


async def follow_all(
    http: httpx2.AsyncClient, ready: asyncio.Event, again: asyncio.Semaphore, wanted: int
) -> set[tuple[str, int]]:
    """The rows of a tenant's stream, until so many jobs have ended. ``again`` counts jobs that were taken back."""
    seen: list[tuple[str, int]] = []
    async with events(http, "/v1/events") as raw:
        async for frame in named(raw):
            ready.set()
            if frame.event == "place":
                continue
            seen.append((frame.data["job_id"], frame.data["seq"]))
            if frame.data["data"].get("reason") == "lease_lost":
                again.release()
            wanted -= frame.data["data"].get("state") == "succeeded"
            if not wanted:
                break
    assert len(seen) == len(set(seen))
    return set(seen)


async def follow(http: httpx2.AsyncClient, job_id: str) -> list[Frame]:
    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        return await rest(raw)


@pytest.mark.usefixtures("controls")
async def test_every_follower_at_every_replica_sees_every_row_while_nodes_are_lost(
    engines: Engines, database_url: str, api: RunningApi, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    async with (
        running_api(api_settings(engines, database_url)) as other,
        httpx2.AsyncClient(base_url=other.url, headers=caller.http.headers, timeout=30) as there,
    ):
        replicas = [caller.http, there]
        ready, again = [asyncio.Event() for _ in replicas], [asyncio.Semaphore(0) for _ in replicas]
        of_tenant = [
            asyncio.create_task(follow_all(http, begun, taken_back, JOBS))
            for http, begun, taken_back in zip(replicas, ready, again, strict=True)
        ]
        for begun in ready:
            await begun.wait()
        job_ids: list[str] = []
        for number in range(JOBS):
            answer = await replicas[number % 2].post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}})
            job_ids.append(answer.json()["id"])
        of_jobs = [asyncio.create_task(follow(http, job_id)) for job_id in job_ids for http in replicas]

        lost = [await node.claim() for _ in range(JOBS // 3)]
        async with db.begin() as tx:
            await tx.execute(
                text("UPDATE job_leases SET expires_at = now() - interval '1 day' WHERE job_id = ANY (:ids)"),
                {"ids": [claim.job_id for claim in lost]},
            )
            # The server may have just started, and leases are spared for their length after that.
            await tx.execute(text("UPDATE nodes SET lease_s = 0 WHERE id = :id"), {"id": node.node_id})
        for taken_back in again:
            for _ in lost:
                await taken_back.acquire()
        for _ in range(JOBS):
            claim = await node.claim()
            await node.log(claim, f"attempt {claim.attempt}")
            await node.succeed(claim, {"answer": 42})
        by_tenant, by_job = await asyncio.gather(*of_tenant), await asyncio.gather(*of_jobs)
        async with db.connect() as connection:
            stored = await connection.execute(
                text("SELECT job_id::text, seq FROM job_events WHERE tenant_id = :id"), {"id": caller.id}
            )
            rows = {(job_id, seq) for job_id, seq in stored}

    assert len(rows) == 4 * JOBS + 2 * len(lost)
    assert by_tenant == [rows, rows]
    for number, job_id in enumerate(job_ids):
        for seen in by_job[2 * number : 2 * number + 2]:
            assert {(job_id, int((frame.id or "").partition(".")[0])) for frame in seen} == {
                row for row in rows if row[0] == job_id
            }


async def test_idle_streams_cost_a_statement_a_look_and_one_for_their_keys_however_many_they_are(
    engines: Engines, database_url: str, caller: Tenant, node: ActingNode, app: str
) -> None:
    given = {"app": app, "input": {"prompt": "a cat"}}
    # The followed job is not the one whose event is the newest.
    job_id, _ = [(await caller.http.post("/v1/jobs", json=given)).json()["id"] for _ in range(2)]
    paths = [
        f"/v1/jobs/{job_id}/events",
        "/v1/events",
        f"/v1/events?job_id={job_id}",
        "/v1/events?state=running&after=0",
    ]
    since_another, idle = Counter[str](), asyncio.Event()
    key_looks: list[int] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "last_seq::bigint" in statement:
            since_another["looks"] += 1
        elif "FROM api_keys" in statement:
            since_another["keys"] += 1
        else:
            since_another.clear()
        if since_another["looks"] == 6 and not idle.is_set():
            key_looks.append(since_another["keys"])
            idle.set()

    async with running_api(api_settings(engines, database_url, look_s=0.1)) as alone, AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=alone.url, headers=caller.http.headers, timeout=20)
        )
        streams = [await stack.enter_async_context(events(http, path)) for path in paths * 4]
        for stream in streams:
            await anext(named(stream))
        event.listen(alone.here.db.sync_engine, "before_cursor_execute", note)
        # After what they still had to read when they were opened: nothing but the looks.
        async with asyncio.timeout(20):
            await idle.wait()
        assert key_looks[0] <= 6, "they are seldomer than looks; one for each stream would be more"
        assert alone.here.metrics.streams.collect()[0].samples[0].value == len(streams)
