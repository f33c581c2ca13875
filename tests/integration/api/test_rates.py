"""Who asks too often, or keeps too much waiting, is told so and when to come back; over all replicas, without Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from api.recent import KEPT_S
from stoker.local.engines import Engines
from stoker.tenants import list_tenants
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.tenants import Tenant, count_jobs, make_client

pytestmark = pytest.mark.anyio

NEVER = 0.001
"""Requests a second: one, and then none for as long as a test lasts."""


@pytest.fixture(scope="module")
async def replica(engines: Engines, database_url: str) -> AsyncIterator[RunningApi]:
    async with running_api(api_settings(engines, database_url)) as running:
        yield running


@pytest.fixture(scope="module")
async def cut_off(engines: Engines, database_url: str) -> AsyncIterator[RunningApi]:
    """A replica without Redis."""
    async with running_api(api_settings(engines, database_url, redis_url="redis://127.0.0.1:1")) as running:
        yield running


async def set_limits(admin: httpx2.AsyncClient, api: RunningApi, tenant: Tenant, **limits: float) -> None:
    [name] = [row.name for row in await list_tenants(api.here.db) if row.id == tenant.id]
    assert (await admin.post(f"/v1/tenants/{name}", json=limits)).status_code == 200


def at(api: RunningApi, tenant: Tenant) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=api.url, headers={"authorization": f"Key {tenant.key}"}, timeout=20)


async def test_a_limit_on_requests_is_one_over_all_replicas_and_keys_of_a_tenant(
    api: RunningApi, replica: RunningApi, admin: httpx2.AsyncClient, caller: Tenant
) -> None:
    [name] = [row.name for row in await list_tenants(api.here.db) if row.id == caller.id]
    second_key = await make_client(api, "read", tenant=name)
    await set_limits(admin, api, caller, max_requests_per_s=NEVER)

    async with at(replica, caller) as other, second_key.http as with_another_key:
        answers = [await http.get("/v1/jobs") for http in (other, caller.http, with_another_key, other)]

    assert [answer.status_code for answer in answers] == [200, 429, 429, 429]
    assert {answer.json()["code"] for answer in answers[1:]} == {"rate_limited"}


async def test_as_many_requests_may_come_at_once_as_in_a_second(
    api: RunningApi, admin: httpx2.AsyncClient, caller: Tenant
) -> None:
    await set_limits(admin, api, caller, max_requests_per_s=5)

    answers = await asyncio.gather(*(caller.http.get("/v1/jobs") for _ in range(5)))

    assert [answer.status_code for answer in answers] == [200] * 5


async def test_who_comes_back_when_it_was_told_to_is_let_in(
    api: RunningApi, admin: httpx2.AsyncClient, caller: Tenant
) -> None:
    await set_limits(admin, api, caller, max_requests_per_s=NEVER)
    first, second = await caller.http.get("/v1/jobs"), await caller.http.get("/v1/jobs")

    left = int(second.headers["retry-after"])
    redis = api.here.bus._link.redis
    ttl = await redis.pttl(f"stoker:rate:{caller.id}")
    await redis.delete(f"stoker:rate:{caller.id}")  # as its time to live does by then
    third = await caller.http.get("/v1/jobs")

    assert [first.status_code, second.status_code, third.status_code] == [200, 429, 200]
    assert 900 < left <= 1000
    assert 0 < ttl <= 1_000_000


async def test_without_redis_each_replica_counts_by_itself(
    cut_off: RunningApi, api: RunningApi, admin: httpx2.AsyncClient, caller: Tenant
) -> None:
    await set_limits(admin, api, caller, max_requests_per_s=NEVER)

    async with at(cut_off, caller) as http:
        answers = [(await http.get("/v1/jobs")).status_code for _ in range(3)]

    assert answers == [200, 429, 429]
    assert (await caller.http.get("/v1/jobs")).status_code == 200


async def test_other_tenants_are_not_counted_with_it(
    api: RunningApi, admin: httpx2.AsyncClient, caller: Tenant, stranger: httpx2.AsyncClient
) -> None:
    await set_limits(admin, api, caller, max_requests_per_s=NEVER)

    await caller.http.get("/v1/jobs")

    assert (await caller.http.get("/v1/jobs")).status_code == 429
    assert [(await stranger.get("/v1/jobs")).status_code for _ in range(3)] == [200] * 3


async def test_no_more_of_a_tenants_jobs_wait_than_may_however_they_come(
    api: RunningApi,
    replica: RunningApi,
    admin: httpx2.AsyncClient,
    caller: Tenant,
    node: ActingNode,
    app: str,
) -> None:
    other = await ActingNode.start(api.here.db, api.here.bus, f"{app}-two")
    await set_limits(admin, api, caller, max_waiting=3)
    bodies = [
        {"app": app, "input": {"prompt": "x"}},
        {"app": other.version.app, "input": {"prompt": "x"}},
        {"app": app, "input": {"prompt": "x"}, "run_at": "2030-01-01T00:00:00Z"},
        {"app": app, "endpoint": "/train", "input": {"prompt": "x"}},
    ]

    async with at(replica, caller) as second:
        answers = await asyncio.gather(
            *(http.post("/v1/jobs", json=body) for http in (caller.http, second) for body in bodies)
        )

    refused = [answer for answer in answers if answer.status_code != 202]
    assert await count_jobs(api.here.db, caller.id) == 3
    assert len(refused) == 5
    assert {(answer.status_code, answer.json()["code"], answer.headers["retry-after"]) for answer in refused} == {
        (429, "tenant_queue_full", "2")
    }


async def test_a_job_that_starts_makes_room_and_one_that_was_made_before_needs_none(
    api: RunningApi, admin: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str
) -> None:
    await set_limits(admin, api, caller, max_waiting=1)
    body, key = {"app": app, "input": {"prompt": "x"}}, {"idempotency-key": "one"}
    first = await caller.http.post("/v1/jobs", json=body, headers=key)

    full = await caller.http.post("/v1/jobs", json=body)
    again = await caller.http.post("/v1/jobs", json=body, headers=key)
    await node.claim()
    next_one = await caller.http.post("/v1/jobs", json=body)
    await node.succeed(await node.claim(), {})
    filled = await caller.http.post("/v1/jobs", json=body)
    retried = await caller.http.post(f"/v1/jobs/{next_one.json()['id']}/retry")

    assert [answer.status_code for answer in (first, full, again, next_one, filled)] == [202, 429, 202, 202, 202]
    assert again.json()["id"] == first.json()["id"]
    assert (retried.status_code, retried.json()["code"]) == (429, "tenant_queue_full")


async def test_a_revoked_key_is_refused_by_all_replicas_within_a_second(
    admin: httpx2.AsyncClient, replica: RunningApi, api: RunningApi
) -> None:
    made = (await admin.post("/v1/keys", json={"scopes": ["read"]})).json()
    async with httpx2.AsyncClient(base_url=replica.url, headers={"authorization": f"Key {made['key']}"}) as other:
        before = await other.get("/v1/jobs")

        await admin.delete(f"/v1/keys/{made['id']}")
        async with asyncio.timeout(20):
            while (after := await other.get("/v1/jobs")).status_code == 200:
                pass

    assert before.status_code == 200
    assert (after.status_code, after.json()["code"]) == (401, "unauthenticated")
    assert KEPT_S < 1  # no replica answers from what it knew longer ago than that


async def test_an_upload_token_is_counted_as_its_key_is(
    api: RunningApi, admin: httpx2.AsyncClient, caller: Tenant
) -> None:
    token = (await caller.http.post("/rest/storage/auth/token", json={})).json()["token"]
    await set_limits(admin, api, caller, max_requests_per_s=NEVER)

    async with httpx2.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {token}"}) as holder:
        answers = [await holder.post("/cdn/files/upload", content=b"a file") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    assert int(answers[1].headers["retry-after"]) > 0
