"""The routes of fal's wire: who may call them, through the proxy too, and what any other path is answered."""

from __future__ import annotations

import asyncio
from urllib.parse import quote
from uuid import uuid4

import httpx2
import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from api.fal import cdn, queue, rest, run
from tests.integration.api.fal.test_queue import CAT
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi
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
    routes = [route for part in (queue, run, rest, cdn) for route in part.router.routes if isinstance(route, APIRoute)]
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
    assert (climbing.status_code, without.status_code) == (405, 401)  # no route: nothing climbs
    assert await count_jobs(db, caller.id) == 1


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
