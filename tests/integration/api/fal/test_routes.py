"""The routes of fal's wire: who may call them, by key, token, page and proxy, by which methods, and any other path."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from api.fal import cdn, queue, rest, run, tokens, wishes
from stoker import job_queries, keys
from stoker.local.engines import Engines
from tests.integration.api.fal.test_queue import CAT
from tests.integration.api.fal.test_runs import claimed
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.tenants import Tenant, count_jobs, make_client

pytestmark = pytest.mark.anyio

WORDS = ["acme", "app", "requests", "status", "stream", "cancel", "workflows", "0" * 32, "file_" + "0" * 32]
SEGMENT = st.one_of(st.sampled_from(WORDS), st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)).filter(
    lambda segment: segment not in (".", "..")  # a client takes them out of a path itself
)
PATHS = st.builds(
    lambda prefix, segments: "/".join([prefix, *(quote(segment, safe="") for segment in segments)]),
    st.sampled_from(["/queue", "/run"]),
    st.lists(SEGMENT, min_size=1, max_size=6),
)


async def test_every_route_asks_for_a_key_but_those_whose_address_is_one(api: RunningApi) -> None:
    routes = [
        route for part in (queue, run, rest, tokens, cdn) for route in part.router.routes if isinstance(route, APIRoute)
    ]
    known = {"request_id": str(uuid4()), "upload_id": str(uuid4()), "file_id": f"file_{uuid4().hex}", "number": "1"}
    known |= {"owner": "acme", "alias": "app", "name": "x"}

    answered: dict[int, set[str]] = {}
    async with httpx2.AsyncClient(base_url=api.url) as anybody:
        for route in routes:
            path = route.path.replace("{path:path}", "x")
            for name, value in known.items():
                path = path.replace(f"{{{name}}}", value)
            for method in route.methods:
                answered.setdefault((await anybody.request(method, path)).status_code, set()).add(route.path)

    assert len(routes) >= 18
    assert answered.keys() == {401, 404}
    assert answered[404] == {
        "/cdn/uploads/{upload_id}",
        "/cdn/uploads/{upload_id}/{number}",
        "/cdn/uploads/{upload_id}/complete",
        "/cdn/files/{file_id}/{name}",
    }


async def test_the_proxy_answers_what_is_meant_for_fals_hosts_and_nothing_else(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    def to(url: str, **headers: str) -> dict[str, str]:
        return {"x-fal-target-url": url, **headers}

    http = caller.http
    meant = to(f"https://queue.fal.run/{app}/train?fal_max_queue_length=1")
    sent, full = [await http.post("/api/fal/proxy", json=CAT, headers=meant) for _ in range(2)]
    own = f"https://queue.fal.run/{app}/requests/{sent.json()['request_id']}/status"
    asked = await http.get("/api/fal/proxy", headers=to(own))
    refused = [
        await http.get("/api/fal/proxy"),
        await http.get("/api/fal/proxy", headers=to("https://example.com/v1/jobs")),
    ]
    climbing = await http.get("/api/fal/proxy", headers=to("https://queue.fal.run/../v1/keys"))
    async with httpx2.AsyncClient(base_url=http.base_url) as nobody:
        without = await nobody.get("/api/fal/proxy", headers=to(own))

    assert (sent.status_code, full.status_code, asked.json()["status"]) == (200, 429, "IN_QUEUE")
    assert [answer.status_code for answer in refused] == [400, 400]
    assert (climbing.status_code, without.status_code) == (404, 401)  # an app of that name: nothing climbs
    assert await count_jobs(db, caller.id) == 1


async def token_of(http: httpx2.AsyncClient, *apps: str, **changes: object) -> str:
    wanted = {"allowed_apps": apps, "token_expiration": 60, **changes}
    answer = await http.post("/rest/tokens/", json=wanted)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()
    return token


async def test_a_token_runs_its_apps_and_follows_them_and_opens_nothing_else(
    api: RunningApi, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    tenant = await make_client(api, "run")
    async with tenant.http as http:
        token = await token_of(http, app.partition("/")[2])  # as their clients name an app
        request = (await http.post(f"/queue/{app}", json=CAT)).json()
        uploads = (await http.post("/rest/storage/auth/token", json={})).json()["token"]
        for_another = await token_of(http, "other/one", app.partition("/")[0])
    claim = await node.claim()
    given = {"fal_jwt_token": token}
    own = f"/queue/{app}/requests/{request['request_id']}"

    async with httpx2.AsyncClient(base_url=api.url, timeout=20) as page:
        running = asyncio.create_task(page.post(f"/run/{app}/stream", json=CAT, params=given))
        following = asyncio.create_task(page.get(f"{own}/status/stream", params=given))
        await node.succeed(claim, {"answer": 41})
        await node.succeed(await claimed(node, db, tenant, jobs=2), {"answer": 42})
        ran, followed = await running, await following
        refused = [
            await page.post(f"/run/{app}", json=CAT, params={"fal_jwt_token": each})
            for each in (for_another, uploads, token[:-1], token.replace("run~", "run~other~"), "")
        ]
        refused += [
            await page.post(f"/queue/{app}", json=CAT, params=given),
            await page.get(own, params=given),
            await page.get("/v1/jobs", params=given),
            await page.post("/rest/tokens/", json={"allowed_apps": ["x"]}, params=given),
            await page.post("/cdn/files/upload", content=b"x", headers={"authorization": f"Bearer {token}"}),
        ]
        await keys.revoke(db, tenant.key.partition(":")[0])
        refused.append(await page.post(f"/run/{app}", json=CAT, params=given))

    assert (ran.status_code, ran.text) == (200, 'data: {"answer":42}\n\n')
    assert "COMPLETED" in followed.text
    assert [answer.status_code for answer in refused] == [401] * 11


async def test_a_token_is_over_after_its_time_and_lasts_an_hour_at_most(
    caller: Tenant, node: ActingNode, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await token_of(caller.http, app)
    monkeypatch.setattr("stoker.key_tokens.time", SimpleNamespace(time=lambda: time.time() + 61))

    async with httpx2.AsyncClient(base_url=caller.http.base_url) as page:
        late = await page.post(f"/run/{app}", json=CAT, params={"fal_jwt_token": token})
    wrong = [
        await caller.http.post("/rest/tokens/", json={"allowed_apps": apps, "token_expiration": seconds})
        for apps, seconds in ((["x"], 3601), ([], 60), (["a~b"], 60), (["x"], 0))
    ]

    assert late.status_code == 401
    assert [answer.status_code for answer in wrong] == [422] * 4


async def test_requests_are_made_by_query_too_and_runs_by_any_method(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    query = {"prompt": "17", "steps": "3", "fal_webhook": "https://example.com/"}
    sent = await caller.http.get(f"/queue/{app}/train", params=query)
    wrong = await caller.http.get(f"/queue/{app}", params={"prompt": "a cat", "steps": "many"})
    job = await job_queries.get(db, UUID(sent.json()["request_id"]), None)
    await node.succeed(await node.claim(), {})

    ran = []
    for number, method in enumerate(("PUT", "PATCH", "DELETE", "GET"), 2):
        with_input: dict[str, Any] = {"params": CAT} if method == "GET" else {"json": CAT}
        running = asyncio.create_task(caller.http.request(method, f"/run/{app}", **with_input))
        await node.succeed(await claimed(node, db, caller, jobs=number), {"method": method})
        ran.append((await running).json())

    assert (job.input, job.endpoint, job.webhook_url) == (
        {"prompt": "17", "steps": 3},
        "/train",
        "https://example.com/",
    )
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "steps"])
    assert ran == [{"method": method} for method in ("PUT", "PATCH", "DELETE", "GET")]


async def test_a_page_of_an_allowed_origin_may_send_what_their_client_sends_directly_or_through_the_proxy(
    engines: Engines, database_url: str, caller: Tenant, node: ActingNode, app: str
) -> None:
    origin, key = "https://studio.example", {"authorization": f"Key {caller.key}"}
    sent = ["authorization", "content-type", "idempotency-key", *(name.lower() for name in wishes.HEADERS)]
    calls = [
        ("POST", f"/queue/{app}"),
        ("PUT", f"/queue/{app}/requests/{uuid4()}/cancel"),
        ("PATCH", f"/run/{app}"),
        ("PUT", f"/cdn/uploads/{uuid4()}"),
        ("POST", "/api/fal/proxy"),
        ("GET", "/api/fal/proxy"),
    ]

    async with (
        running_api(api_settings(engines, database_url, cors_origins=origin)) as api,
        httpx2.AsyncClient(base_url=api.url, headers={"origin": origin}) as page,
    ):
        asks = {"access-control-request-headers": ", ".join(sorted(sent))}
        allowed = [
            await page.options(path, headers={**asks, "access-control-request-method": method})
            for method, path in calls
        ]
        other = await page.options(
            f"/queue/{app}",
            headers={**asks, "access-control-request-method": "POST", "origin": "https://evil.example"},
        )
        target = {"x-fal-target-url": f"https://queue.fal.run/{app}"}
        answers = [
            await page.post(f"/queue/{app}", json=CAT, headers=key),
            await page.post("/api/fal/proxy", json=CAT, headers={**key, **target}),
            await page.post(f"/queue/{app}", json={}, headers=key),
            await page.post(f"/queue/{app}", json=CAT),
            await page.post("/api/fal/proxy", json=CAT, headers=key),
        ]
        keys_of = [await page.get(path) for path in ("/.well-known/jwks.json", "/rest/.well-known/jwks.json")]

    assert [(answer.status_code, answer.headers["access-control-allow-origin"]) for answer in allowed] == [
        (200, origin)
    ] * len(calls)
    assert other.status_code == 400
    assert [answer.status_code for answer in answers] == [200, 200, 422, 401, 400]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == origin
        assert "x-fal-request-id" in answer.headers["access-control-expose-headers"].lower()
    assert keys_of[0].json() == keys_of[1].json()


async def test_any_path_is_answered_and_none_breaks_the_server(api: RunningApi) -> None:
    tenant = await make_client(api, "run")
    await tenant.http.aclose()
    headers = {"authorization": f"Key {tenant.key}"}

    def ask() -> None:
        with httpx2.Client(base_url=api.url, headers=headers, timeout=10) as http:

            @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(PATHS, st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
            def check(path: str, method: str) -> None:
                answer = http.request(method, path, json={} if method == "POST" else None)

                assert 400 <= answer.status_code < 500, (path, method, answer.text)
                assert "json" in answer.headers["content-type"]
                assert {"detail", "status"} & answer.json().keys()
                assert answer.headers["x-fal-request-id"]

            check()

    await asyncio.to_thread(ask)
