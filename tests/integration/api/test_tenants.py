"""A key sees its own tenant's rows and nothing else, and does what its scopes allow and nothing else."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi
from tests.support.tenants import make_client

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/{job}"),
        ("GET", "/v1/jobs/{job}/events"),
        ("POST", "/v1/jobs/{job}/cancel"),
        ("POST", "/v1/jobs/{job}/retry"),
        ("GET", "/v1/files/{file}"),
        ("DELETE", "/v1/keys/{key}"),
    ],
)
async def test_an_id_of_another_tenant_answers_404(
    admin: httpx2.AsyncClient, stranger: httpx2.AsyncClient, node: ActingNode, app: str, method: str, path: str
) -> None:
    ids = {
        "job": (await admin.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})).json()["id"],
        "file": (await admin.post("/v1/files", content=b"x")).json()["id"],
        "key": (await admin.post("/v1/keys", json={"scopes": ["read"]})).json()["id"],
    }

    answer = await stranger.request(method, path.format(**ids))

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await admin.get(f"/v1/jobs/{ids['job']}")).json()["state"] == "queued"


async def test_lists_hold_the_own_tenants_rows_alone(
    admin: httpx2.AsyncClient, stranger: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    await admin.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})

    assert len((await admin.get("/v1/jobs")).json()["jobs"]) == 1
    assert (await stranger.get("/v1/jobs")).json()["jobs"] == []
    assert len((await stranger.get("/v1/keys")).json()["keys"]) == 1


async def test_an_idempotency_key_is_the_tenants_own(
    admin: httpx2.AsyncClient, stranger: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    body, headers = {"app": app, "input": {"prompt": "x"}}, {"idempotency-key": "same"}

    mine = (await admin.post("/v1/jobs", json=body, headers=headers)).json()["id"]
    theirs = (await stranger.post("/v1/jobs", json=body, headers=headers)).json()["id"]

    assert mine != theirs


async def test_a_reading_key_changes_nothing(
    api: RunningApi, admin: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    reader = await make_client(api, "read")
    async with reader.http as http:
        answers = [
            await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}}),
            await http.post("/v1/jobs/00000000-0000-7000-8000-000000000000/cancel"),
            await http.post("/v1/jobs/00000000-0000-7000-8000-000000000000/retry"),
            await http.post("/v1/files", content=b"x"),
            await http.post("/v1/files/uploads", json={"file_name": "x", "content_type": "a/b", "size_bytes": 1}),
            await http.get("/v1/nodes"),
        ]
        allowed = await http.get("/v1/jobs")

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "forbidden")}
    assert allowed.status_code == 200


async def test_admin_routes_need_the_admin_scope(http: httpx2.AsyncClient) -> None:
    answers = [
        await http.get("/v1/nodes"),
        await http.get("/v1/queues"),
        await http.get("/v1/keys"),
        await http.post("/v1/keys", json={"scopes": ["admin"]}),
        await http.delete("/v1/keys/sk_000000000000"),
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "forbidden")}
