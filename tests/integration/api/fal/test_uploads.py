"""Uploads on fal's wire: who may send bytes and read them, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from api import storing
from api.fal import cdn
from stoker import keys, stored_files
from stoker.local.engines import Engines
from stoker.storage import Stored
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.tenants import Tenant, make_client

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n"
PART = PNG + b"p" * (cdn.LEAST_PART_BYTES - len(PNG))


@dataclass
class Parts:
    """An upload in parts, as fal's Python client makes it."""

    url: str
    headers: dict[str, str]

    async def put(self, http: httpx2.AsyncClient, number: int, content: bytes) -> httpx2.Response:
        return await http.put(f"{self.url}/{number}", content=content, headers=self.headers)

    async def complete(self, http: httpx2.AsyncClient, *parts: tuple[int, str]) -> httpx2.Response:
        body = {"parts": [{"partNumber": number, "etag": tag} for number, tag in parts]}
        return await http.post(f"{self.url}/complete", json=body, headers=self.headers)


async def token_of(http: httpx2.AsyncClient) -> dict[str, str]:
    issued = (await http.post("/rest/storage/auth/token", params={"storage_type": "fal-cdn-v3"}, json={})).json()
    return {"authorization": f"{issued['token_type']} {issued['token']}"}


async def begin(http: httpx2.AsyncClient) -> tuple[Parts, str]:
    headers = await token_of(http)
    named = headers | {"content-type": "image/png", "x-fal-file-name": "cat.png"}
    begun = (await http.post("/cdn/files/upload/multipart", headers=named)).json()
    return Parts(f"{begun['access_url']}/multipart/{begun['uploadId']}", headers), begun["access_url"]


async def test_parts_make_a_file_in_whatever_order_they_are_named(
    http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    parts, url = await begin(http)
    second = await parts.put(http, 2, b"end")
    first = await parts.put(http, 1, PART)
    done = await parts.complete(http, (2, second.headers["etag"]), (1, first.json()["etag"]))
    again = await parts.complete(http, (1, first.headers["etag"]))

    assert (done.status_code, again.status_code) == (200, 404)
    async with httpx2.AsyncClient(follow_redirects=True) as anybody:
        answer = await anybody.get(url)
    assert (answer.content, answer.headers["content-type"]) == (PART + b"end", "image/png")
    row = await stored_files.get(db, url.split("/")[-2], caller.id)
    assert (row.file_name, row.size_bytes) == ("cat.png", len(PART) + 3)


async def test_a_place_that_was_asked_for_takes_the_bytes_without_a_key_and_once(http: httpx2.AsyncClient) -> None:
    new = {"file_name": "a/b\\grüße.html", "content_type": "text/html; charset=utf-8"}
    places = (await http.post("/rest/storage/upload/initiate", params={"storage_type": "gcs"}, json=new)).json()

    async with httpx2.AsyncClient() as anybody:
        first, second = [await anybody.put(places["upload_url"], content=b"<b>hello") for _ in range(2)]
        followed = await anybody.get(places["file_url"])
        file = await anybody.get(followed.headers["location"])

    assert (first.status_code, second.status_code, followed.status_code) == (200, 404, 302)
    assert file.content == b"<b>hello"
    assert file.headers["content-disposition"].startswith("attachment;")
    assert followed.headers["cache-control"] == "no-store"


async def test_bytes_that_come_again_before_an_upload_is_known_to_be_complete_are_taken_as_the_first_were(
    http: httpx2.AsyncClient, caller: Tenant, db: AsyncEngine
) -> None:
    """The process died in between, or the sender did not wait."""
    new = {"file_name": "note.txt", "content_type": "text/plain"}
    places = (await http.post("/rest/storage/upload/initiate", json=new)).json()

    first = await http.put(places["upload_url"], content=b"hello")
    async with db.begin() as tx:
        await tx.execute(text("UPDATE uploads SET completed_at = NULL"))
    again = await http.put(places["upload_url"], content=b"hello!")

    async with httpx2.AsyncClient(follow_redirects=True) as anybody:
        file = await anybody.get(places["file_url"])
    row = await stored_files.get(db, places["file_url"].split("/")[-2], caller.id)
    assert (first.status_code, again.status_code, again.json()) == (200, 200, first.json())
    assert (file.content, row.size_bytes) == (b"hello!", len(b"hello!"))


async def test_an_object_that_a_row_names_is_not_deleted_with_what_could_not_be_recorded(
    http: httpx2.AsyncClient, api: RunningApi, caller: Tenant
) -> None:
    sent = (await http.post("/v1/files", content=b"hello")).json()
    key = (await stored_files.get(api.here.db, sent["id"], caller.id)).key
    about = (caller.id, stored_files.new_file_id(), "note", "text/plain", Stored(key, 5, ""))

    with pytest.raises(IntegrityError):
        await storing.record(api.here, *about, keep_s=None)

    assert await api.here.storage.size_of(key) == 5


async def test_parts_go_to_a_place_that_was_asked_for_too(http: httpx2.AsyncClient) -> None:
    new = {"file_name": "cat.png", "content_type": "image/png"}
    places = (await http.post("/rest/storage/upload/initiate-multipart", json=new)).json()

    async with httpx2.AsyncClient() as anybody:
        part = (await anybody.put(f"{places['upload_url']}/1", content=b"hello")).json()
        done = await anybody.post(f"{places['upload_url']}/complete", json={"parts": [part]})
        file = await anybody.get(places["file_url"], follow_redirects=True)

    assert (part["partNumber"], done.status_code, file.content) == (1, 200, b"hello")


async def test_a_token_is_needed_and_only_its_own_tenants_upload_goes_on(
    http: httpx2.AsyncClient, stranger: httpx2.AsyncClient, api: RunningApi, caller: Tenant
) -> None:
    parts, _ = await begin(http)
    good = parts.headers["authorization"]
    theirs = Parts(parts.url, await token_of(stranger))
    forged = [
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        good.replace(good.split(".")[1], "99999999999"),
        f"Bearer {caller.key}",
        f"Key {caller.key}",
        "Bearer é.1.x",
        "",
    ]

    async with httpx2.AsyncClient(base_url=api.url) as anybody:
        refused = [
            await anybody.post("/cdn/files/upload", content=b"x", headers={b"authorization": each.encode("latin-1")})
            for each in forged
        ]
        crossing = await theirs.put(anybody, 1, b"x")
        without = await anybody.put(f"{parts.url}/1", content=b"x")

    assert [answer.status_code for answer in refused] == [401] * len(forged)
    assert (crossing.status_code, without.status_code) == (404, 401)


async def test_a_token_is_void_with_its_key_and_after_its_time(
    http: httpx2.AsyncClient, api: RunningApi, db: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await make_client(api, "run")
    async with tenant.http:
        of_revoked = await token_of(tenant.http)
    await keys.revoke(db, tenant.key.partition(":")[0])
    monkeypatch.setattr("stoker.key_tokens.VALID_S", -1)
    of_past = await token_of(http)

    async with httpx2.AsyncClient(base_url=api.url) as anybody:
        for headers in (of_revoked, of_past):
            assert (await anybody.post("/cdn/files/upload", content=b"x", headers=headers)).status_code == 401


async def test_a_key_that_may_not_run_gets_no_token_and_no_place(api: RunningApi) -> None:
    reader = await make_client(api, "read")
    async with reader.http as http:
        answers = [
            await http.post("/rest/storage/auth/token", json={}),
            await http.post("/rest/storage/upload/initiate", json={"file_name": "x", "content_type": "a/b"}),
        ]

    assert [answer.status_code for answer in answers] == [403, 403]


async def test_what_is_too_large_is_refused_while_it_comes(
    engines: Engines, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.fal.cdn.MOST_PART_BYTES", len(PART))
    async with running_api(api_settings(engines, database_url, max_upload_bytes=len(PART) + 10)) as api:
        tenant = await make_client(api, "run")
        async with tenant.http as http:
            whole = await http.post("/cdn/files/upload", content=PART + b"12345678901", headers=await token_of(http))
            parts, url = await begin(http)
            part = await parts.put(http, 1, PART + b"1")
            far = await parts.put(http, 3, b"x")
            tags = [(number, (await parts.put(http, number, PART)).headers["etag"]) for number in (1, 2)]
            together = await parts.complete(http, *tags)
            gone = await http.get(url)

    assert [answer.status_code for answer in (whole, part, far, together)] == [413] * 4
    assert gone.status_code == 404


async def test_what_is_no_part_of_it_completes_no_upload(http: httpx2.AsyncClient) -> None:
    parts, _ = await begin(http)
    await parts.put(http, 1, b"hello")

    unknown = await parts.complete(http, (1, '"0123456789abcdef0123456789abcdef"'))
    none = await parts.complete(http)
    nonsense = await http.post(f"{parts.url}/complete", content=b"[" * 1000, headers=parts.headers)

    assert [answer.status_code for answer in (unknown, none, nonsense)] == [400, 400, 400]


async def test_files_of_the_native_api_have_no_public_address(http: httpx2.AsyncClient) -> None:
    file = (await http.post("/v1/files", content=b"hello", headers={"content-type": "text/plain"})).json()

    async with httpx2.AsyncClient(base_url=http.base_url) as anybody:
        answers = [await anybody.get(f"/cdn/files/{each}/x") for each in (file["id"], f"file_{uuid4().hex}")]

    assert [answer.status_code for answer in answers] == [404, 404]


async def test_an_upload_ends_with_its_time(http: httpx2.AsyncClient, db: AsyncEngine) -> None:
    new = {"file_name": "x", "content_type": "a/b"}
    places = (await http.post("/rest/storage/upload/initiate", json=new)).json()
    async with db.begin() as tx:
        await tx.execute(
            text("UPDATE uploads SET expires_at = stoker_now() WHERE id = :id"),
            {"id": places["upload_url"].rpartition("/")[2]},
        )

    async with httpx2.AsyncClient() as anybody:
        assert (await anybody.put(places["upload_url"], content=b"x")).status_code == 404
