"""Every route that there is: closed without a key, and closed with another tenant's ids.

A route that nobody has placed in one of the tables below fails the walk: its writer decides who may see what it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from api.fal import run
from stoker.local.engines import Engines
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings
from tests.support.webhooks import deliverer, logged, one_round

pytestmark = pytest.mark.anyio

OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("HEAD", "/openapi.json"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/rest/.well-known/jwks.json"),
    # Whoever knows the token or the upload's id may.
    ("GET", "/outputs/{token}/{name}"),
    ("HEAD", "/outputs/{token}/{name}"),
    ("GET", "/cdn/files/{file_id}/{name}"),
    ("HEAD", "/cdn/files/{file_id}/{name}"),
    ("PUT", "/cdn/uploads/{upload_id}"),
    ("PUT", "/cdn/uploads/{upload_id}/{number}"),
    ("POST", "/cdn/uploads/{upload_id}/complete"),
}
"""No key is asked for."""
OWNED = {"job_id", "request_id", "file_id", "key_id", "delivery_id", "secret_id", "upload_id"}
"""What a path names with these belongs to one tenant."""
OF_ALL = {
    ("GET", "/v1/apps/{owner}/{alias}"),
    ("GET", "/v1/apps/{owner}/{alias}/openapi.json"),
    ("POST", "/v1/queues/{owner}/{alias}"),
    ("POST", "/v1/queues/{owner}/{alias}/pause"),
    ("POST", "/v1/queues/{owner}/{alias}/resume"),
    ("POST", "/v1/tenants/{name}"),
    ("POST", "/v1/nodes/{node_id}/drain"),
    *((method, "/queue/{owner}/{alias}" + path) for method in ("GET", "POST") for path in ("", "/{path:path}")),
    *((method, "/run/{owner}/{alias}" + path) for method in ("GET", *run.METHODS) for path in ("", "/{path:path}")),
}
"""Apps and nodes are the installation's, their queues and the tenants' limits its admins'."""
BY_UPLOAD_TOKEN = "/cdn/files/"


@dataclass(frozen=True)
class Victim:
    """A tenant with one of everything: ``ids`` by the paths' names, ``secrets`` that no other tenant may be told."""

    http: httpx2.AsyncClient
    ids: dict[str, str]
    secrets: frozenset[str]


def routes(engines: Engines, database_url: str) -> list[tuple[str, str]]:
    """Each method with its path, those that no schema shows too."""

    def walk(found: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
        for route in found:
            if (router := getattr(route, "original_router", None)) is not None:
                yield from walk(router.routes, prefix + route.include_context.prefix)
            else:
                yield from ((method, prefix + route.path) for method in sorted(route.methods))

    return list(walk(create_app(api_settings(engines, database_url)).routes))


def filled(path: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        path = re.sub(rf"{{{name}(:\w+)?}}", value, path)
    assert "{" not in path, f"nobody has said what stands for a part of {path}"
    return path


def names(path: str) -> set[str]:
    return {part.strip("{}").partition(":")[0] for part in path.split("/") if part.startswith("{")}


async def upload_token(http: httpx2.AsyncClient) -> dict[str, str]:
    answer = await http.post("/rest/storage/auth/token", json={})
    assert answer.status_code == 200, answer.text
    return {"authorization": f"Bearer {answer.json()['token']}"}


@pytest.fixture
async def victim(
    api: RunningApi, node: ActingNode, app: str, db: AsyncEngine, storage: Storage, admin: httpx2.AsyncClient
) -> Victim:
    word = f"marked-{uuid4().hex[:12]}"
    body = {"app": app, "input": {"prompt": word}, "tags": [word], "webhook_url": f"https://{word}.example/"}
    job_id = (await admin.post("/v1/jobs", json=body)).json()["id"]
    claim = await node.claim()
    await node.log(claim, word)
    output = await node.store(storage, claim, f"{word}.png", "/image", b"\x89PNG", "image/png")
    await node.succeed(claim, {"answer": word, "image": {"url": f"/outputs/{output.token}/{word}.png"}}, [output])
    async with deliverer(db) as sender:  # its name leads nowhere: the try is in the log
        await one_round(sender)
    delivery = await logged(admin, job_id)
    waiting = (await admin.post("/v1/jobs", json=body)).json()["id"]
    file = (await admin.post("/v1/files", params={"file_name": f"{word}.png"}, content=b"x")).json()
    key = (await admin.post("/v1/keys", json={"scopes": ["read"], "name": word})).json()
    secret = (await admin.post("/v1/webhooks/secrets", json={})).json()
    headers = {**await upload_token(admin), "x-fal-file-name": f"{word}.png", "content-type": "image/png"}
    begun = (await admin.post("/cdn/files/upload/multipart", headers=headers)).json()
    owner, alias = app.split("/")
    ids = {
        "job_id": job_id,
        "request_id": job_id,
        "file_id": file["id"],
        "key_id": key["id"],
        "delivery_id": delivery["id"],
        "secret_id": secret["id"],
        "upload_id": begun["uploadId"],
        "owner": owner,
        "alias": alias,
        "name": "nobody",
        "node_id": "nobody",
        "number": "1",
        "path": "nowhere",
        "token": "t" * 32,
    }
    told = {word, waiting, output.token, secret["secret"], key["key"]}
    return Victim(admin, ids, frozenset(told))


async def test_without_a_key_every_route_but_the_open_ones_answers_401_and_says_nothing(
    api: RunningApi, engines: Engines, database_url: str, victim: Victim
) -> None:
    found = routes(engines, database_url)
    closed = [route for route in found if route not in OPEN]

    async with httpx2.AsyncClient(base_url=api.url) as anybody:
        for method, path in closed:
            for header in ({}, {"authorization": "Key sk_nobody:nothing"}):
                answer = await anybody.request(method, filled(path, victim.ids), headers=header)
                assert answer.status_code == 401, (method, path, header)
                assert not [word for word in victim.secrets if word in answer.text]

    assert set(found) >= OPEN
    assert len(closed) >= 40


async def test_with_another_tenants_ids_every_route_answers_404_and_tells_nothing(
    api: RunningApi, engines: Engines, database_url: str, victim: Victim, stranger: httpx2.AsyncClient
) -> None:
    found = [route for route in routes(engines, database_url) if route not in OPEN]
    token = await upload_token(stranger)
    ids = {name: victim.ids[name] for name in ("job_id", "request_id")}
    asked = {"job_id": ids["job_id"], "parent": ids["job_id"], "parent_id": ids["job_id"], "root_id": ids["job_id"]}
    placed = 0

    for method, path in found:
        headers = {"accept": "application/json"} | (token if path.startswith(BY_UPLOAD_TOKEN) else {})
        query = asked if method == "GET" else {}
        body = {} if method in ("POST", "PUT") else None
        answer = await stranger.request(method, filled(path, victim.ids), headers=headers, params=query, json=body)

        if names(path) & OWNED:
            assert answer.status_code in (403, 404), (method, path, answer.status_code, answer.text)
            placed += 1
        elif names(path):
            assert (method, path) in OF_ALL, f"say of {method} {path} whose it is"
        assert answer.status_code < 500, (method, path, answer.text)
        told = answer.text + str(answer.headers)
        assert not [word for word in victim.secrets if word in told], (method, path, told)
        if not names(path) & OWNED:
            assert not [name for name in OWNED if victim.ids[name] in told], (method, path, told)

    assert placed >= 15


async def test_what_another_tenant_tried_has_changed_nothing(
    api: RunningApi, engines: Engines, database_url: str, victim: Victim, stranger: httpx2.AsyncClient
) -> None:
    before = await all_of(victim)

    for method, path in routes(engines, database_url):
        if method in ("POST", "PUT", "DELETE") and names(path) & OWNED and (method, path) not in OPEN:
            await stranger.request(method, filled(path, victim.ids), json={})

    assert await all_of(victim) == before


async def all_of(victim: Victim) -> list[Any]:
    paths = [
        f"/v1/jobs/{victim.ids['job_id']}",
        "/v1/jobs",
        f"/v1/jobs/{victim.ids['job_id']}/deliveries",
        "/v1/keys",
        "/v1/webhooks/secrets",
    ]
    return [(await victim.http.get(path)).json() for path in paths]


async def test_the_own_key_opens_what_another_tenants_does_not(
    engines: Engines, database_url: str, victim: Victim
) -> None:
    for method, path in routes(engines, database_url):
        if method == "GET" and names(path) & {"job_id", "file_id"} and path.startswith("/v1/"):
            answer = await victim.http.get(filled(path, victim.ids), headers={"accept": "application/json"})
            assert answer.status_code == 200, (path, answer.status_code)
