"""Runs that are not queued: the caller waits, and its leaving ends the job."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.following import follow
from stoker import job_queries, keys
from stoker.errors import AppError
from stoker.jobs import Claim
from stoker.local.engines import Engines
from stoker.states import JobState
from tests.integration.api.fal.test_queue import CAT, fail
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.nodes import eventually
from tests.support.sse import frames
from tests.support.tenants import Tenant, make_client

pytestmark = pytest.mark.anyio


async def claimed(node: ActingNode, db: AsyncEngine, tenant: Tenant, jobs: int = 1) -> Claim:
    """The claim of the next job, as soon as there are so many."""

    async def look() -> bool | None:
        return len((await job_queries.list_jobs(db, tenant.id)).jobs) == jobs or None

    await eventually(look, lambda: "a job")
    return await node.claim()


async def final(db: AsyncEngine, claim: Claim) -> JobState:
    async def look() -> JobState | None:
        job = await job_queries.get(db, claim.job_id, None)
        return job.state if job.state.is_final or job.cancel_requested_at else None

    return await eventually(look, lambda: f"the end of {claim.job_id}")


async def test_a_run_answers_with_the_result_of_a_job_of_the_best_class(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    running = asyncio.create_task(caller.http.post(f"/run/{app}", json=CAT))
    claim = await claimed(node, db, caller)
    await node.progress(claim, claim.seq, 1)
    await node.succeed(claim, {"answer": 42})

    answer = await running

    assert (answer.status_code, answer.json()) == (200, {"answer": 42})
    assert answer.headers["x-fal-request-id"] == str(claim.job_id)
    assert (await job_queries.get(db, claim.job_id, None)).priority == 0


async def test_a_key_that_may_not_be_first_runs_as_soon_as_it_may(
    api: RunningApi, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    tenant = await make_client(api, "run", best_priority=3)
    async with tenant.http:
        running = asyncio.create_task(tenant.http.post(f"/run/{app}", json=CAT))
        claim = await claimed(node, db, tenant)
        await node.succeed(claim, {})
        await running

    assert (await job_queries.get(db, claim.job_id, None)).priority == 3


async def test_a_run_that_fails_answers_with_the_errors_code(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    running = asyncio.create_task(caller.http.post(f"/run/{app}", json=CAT, headers={"x-fal-no-retry": "1"}))
    await eventually(lambda: _is_waiting(db, caller), lambda: "a job")
    await fail(node, AppError("no such style"))

    answer = await running

    assert (answer.status_code, answer.json()["detail"]) == (500, "no such style")


@pytest.mark.parametrize("path", ["", "/stream"])
async def test_a_caller_that_leaves_cancels_its_job(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine, path: str
) -> None:
    running = asyncio.create_task(caller.http.post(f"/run/{app}{path}", json=CAT))
    claim = await claimed(node, db, caller)

    running.cancel()

    assert await final(db, claim) is JobState.RUNNING  # and asked to stop
    await node.stop(claim)


async def test_a_caller_that_leaves_a_stream_cancels_its_job(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    async def read_one() -> Claim:
        opening = asyncio.create_task(_claim_and_stream(node, db, caller))
        async with caller.http.stream("POST", f"/run/{app}/stream", json=CAT) as answer:
            assert (await anext(frames(answer))).data["step"] == 1
            return await opening

    claim = await read_one()

    assert await final(db, claim) is JobState.RUNNING
    await node.stop(claim)


async def test_what_a_job_streams_before_anybody_listens_is_not_missed(
    caller: Tenant, node: ActingNode, app: str, api: RunningApi
) -> None:
    await caller.http.post(f"/queue/{app}", json=CAT)
    claim = await node.claim()
    await node.progress(claim, claim.seq, 1)

    batches = follow(api.here, claim.job_id, with_progress=True)
    first = await anext(batches)
    await batches.aclose()

    assert [event.data.get("step") or event.data.get("state") for event in first] == [1, "queued", "running"]
    await node.succeed(claim, {})


async def test_a_stream_of_statuses_says_that_it_is_there_while_only_progress_comes(
    engines: Engines, database_url: str
) -> None:
    async with running_api(api_settings(engines, database_url, ping_s=0.05)) as api:
        node = await ActingNode.start(api.here.db, api.here.bus, "acme/quiet")
        tenant = await make_client(api, "run")
        async with tenant.http as http:
            request = (await http.post("/queue/acme/quiet", json=CAT)).json()
            claim = await node.claim()

            seen = asyncio.Event()
            steady = asyncio.create_task(_stream_until(seen, node, claim))
            async with asyncio.timeout(20), http.stream("GET", f"{request['status_url']}/stream") as answer:
                comment = None
                stream = frames(answer)
                while comment is None:
                    comment = (await anext(stream)).comment
            seen.set()
            await steady

    assert comment == "ping"


async def test_a_stream_ends_with_its_key_and_its_job_with_it(
    api: RunningApi, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    tenant = await make_client(api, "run")
    async with tenant.http as http, asyncio.timeout(20):
        opening = asyncio.create_task(_claim_and_stream(node, db, tenant))
        async with http.stream("POST", f"/run/{app}/stream", json=CAT) as answer:
            stream = frames(answer)
            await anext(stream)
            claim = await opening
            await keys.revoke(db, tenant.key.partition(":")[0])
            rest = [frame async for frame in stream]

    assert rest == []
    assert await final(db, claim) is JobState.RUNNING  # and asked to stop
    await node.stop(claim)


async def _stream_until(seen: asyncio.Event, node: ActingNode, claim: Claim) -> None:
    """Asked to stop by an event: a cancel would be lost in the client of Redis."""
    for step in itertools.count(2):
        if seen.is_set():
            return
        await node.progress(claim, claim.seq, step)


async def test_a_stream_sends_what_the_job_streams_and_its_result_last(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    opening = asyncio.create_task(_claim_and_stream(node, db, caller))
    async with caller.http.stream("POST", f"/run/{app}/train/stream", json=CAT) as answer:
        stream = frames(answer)
        first = (await anext(stream)).data
        claim = await opening
        await node.progress(claim, claim.seq, 2)
        second = (await anext(stream)).data
        await node.succeed(claim, {"answer": 42})
        rest = [frame async for frame in stream]

    assert [first["step"], second["step"]] == [1, 2]
    assert [(frame.event, frame.data) for frame in rest] == [(None, {"answer": 42})]
    assert answer.headers["x-fal-request-id"] == str(claim.job_id)
    assert (await job_queries.get(db, claim.job_id, None)).endpoint == "/train"


async def test_a_job_that_streams_nothing_is_a_stream_of_its_result(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    running = asyncio.create_task(caller.http.post(f"/run/{app}/stream", json=CAT))
    await node.succeed(await claimed(node, db, caller), {"answer": 42})

    answer = await running

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == 'data: {"answer":42}\n\n'


async def test_a_job_that_fails_before_it_streams_is_an_error_and_after_that_the_last_event(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    running = asyncio.create_task(caller.http.post(f"/run/{app}/stream", json=CAT, headers={"x-fal-no-retry": "1"}))
    await eventually(lambda: _is_waiting(db, caller), lambda: "a job")
    await fail(node, AppError("no such style"))
    refused = await running

    opening = asyncio.create_task(_claim_and_stream(node, db, caller))
    async with caller.http.stream("POST", f"/run/{app}/stream", json=CAT) as answer:
        stream = frames(answer)
        await anext(stream)
        await node.stop(await opening)
        [last] = [frame async for frame in stream]

    assert (refused.status_code, refused.json()["error_type"]) == (500, "runner_server_error")
    assert (last.event, last.data["error_type"]) == ("error", "client_cancelled")


async def test_a_server_that_stops_ends_its_runs_and_cancels_them(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine, api: RunningApi
) -> None:
    running = asyncio.create_task(caller.http.post(f"/run/{app}", json=CAT))
    claim = await claimed(node, db, caller)

    api.here.stopping.set()
    try:
        answer = await running
    finally:
        api.here.stopping.clear()

    assert answer.status_code == 503
    assert await final(db, claim) is JobState.RUNNING
    await node.stop(claim)


async def _claim_and_stream(node: ActingNode, db: AsyncEngine, tenant: Tenant) -> Claim:
    """Claim the job that waits, and stream something of it once somebody follows it."""
    await eventually(lambda: _is_waiting(db, tenant), lambda: "a job")
    claim = await node.claim()
    await node.progress(claim, claim.seq, 1)
    return claim


async def _is_waiting(db: AsyncEngine, tenant: Tenant) -> bool | None:
    page = await job_queries.list_jobs(db, tenant.id, job_queries.JobFilters(state=JobState.QUEUED))
    return bool(page.jobs) or None
