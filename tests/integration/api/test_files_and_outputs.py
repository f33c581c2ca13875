"""Files in, outputs out, against a real object store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import httpx2
import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import job_logs
from stoker.job_logs import LogFile
from stoker.local.engines import Engines
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.api_server import api_settings, running_api
from tests.support.tenants import Tenant

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n, and more"


async def chunks_of(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_an_uploaded_file_can_be_read_back(http: httpx2.AsyncClient) -> None:
    answer = await http.post(
        "/v1/files", params={"file_name": "a cat.png"}, content=PNG, headers={"content-type": "image/png"}
    )
    file = answer.json()
    shown = (await http.get(file["links"]["self"])).json()
    async with httpx2.AsyncClient() as anybody:
        read = await anybody.get(shown["download_url"])

    assert answer.status_code == 201
    assert (file["url"], file["file_name"], file["content_type"]) == (file["id"], "a cat.png", "image/png")
    assert (file["file_size"], file["sha256"]) == (len(PNG), hashlib.sha256(PNG).hexdigest())
    assert (read.content, read.headers["content-type"]) == (PNG, "image/png")
    assert read.headers["content-disposition"] == "inline; filename*=UTF-8''a%20cat.png"


async def test_a_large_upload_is_streamed_past_the_limit_of_bodies(http: httpx2.AsyncClient) -> None:
    digest = hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(20):
            chunk = bytes([number]) * MEGABYTE
            digest.update(chunk)
            yield chunk

    file = (await http.post("/v1/files", content=chunks())).json()
    link = (await http.get(f"/v1/files/{file['id']}")).json()["download_url"]
    async with httpx2.AsyncClient() as anybody:
        read = await anybody.get(link)

    assert (file["file_size"], file["sha256"]) == (20 * MEGABYTE, digest.hexdigest())
    assert hashlib.sha256(read.content).hexdigest() == digest.hexdigest()


async def test_an_upload_over_its_limit_leaves_nothing(
    engines: Engines, database_url: str, http: httpx2.AsyncClient
) -> None:
    settings = api_settings(engines, database_url, max_upload_bytes=10 * MEGABYTE)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * MEGABYTE

    async with running_api(settings) as strict, httpx2.AsyncClient(base_url=strict.url, headers=http.headers) as client:
        answer = await client.post("/v1/files", content=chunks())
        presigned = await client.post(
            "/v1/files/uploads",
            json={"file_name": "x", "content_type": "text/plain", "size_bytes": 10 * MEGABYTE + 1},
        )

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert (presigned.status_code, presigned.json()["code"]) == (413, "payload_too_large")


async def test_a_form_is_not_taken_for_a_file(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/files", files={"file": b"x"})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "--data-binary" in answer.json()["hint"]


async def test_a_file_can_be_put_straight_into_the_store(http: httpx2.AsyncClient) -> None:
    body = {"file_name": "weights.bin", "content_type": "application/octet-stream", "size_bytes": 5}
    begun = (await http.post("/v1/files/uploads", json=body)).json()

    async with httpx2.AsyncClient() as anybody:
        upload = begun["upload"]
        other_type = await anybody.put(upload["url"], content=b"12345", headers={"content-type": "text/html"})
        put = await anybody.put(upload["url"], content=b"12345", headers=upload["headers"])
        link = (await http.get(f"/v1/files/{begun['file']['id']}")).json()["download_url"]
        read = await anybody.get(link)

    assert other_type.status_code == 403
    assert put.status_code == 200
    assert read.content == b"12345"
    assert read.headers["content-disposition"].startswith("attachment")


async def test_the_link_of_an_output_leads_to_its_bytes(
    http: httpx2.AsyncClient, node: ActingNode, app: str, storage: Storage
) -> None:
    await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})
    claim = await node.claim()
    picture = await node.store(storage, claim, "cat.png", "/image", b"png bytes", "image/png")
    page = await node.store(storage, claim, "page.html", "", b"<script>", "text/html")
    await node.succeed(claim, {"image": {"url": f"/outputs/{picture.token}/cat.png"}}, [picture, page])

    async with httpx2.AsyncClient(base_url=http.base_url) as anybody:
        first = await anybody.get(f"/outputs/{picture.token}/cat.png")
        read = await anybody.get(first.headers["location"])
        html = await anybody.get(f"/outputs/{page.token}/page.html", follow_redirects=True)
        other_name = await anybody.get(f"/outputs/{picture.token}/dog.png")
        other_token = await anybody.get(f"/outputs/{'x' * 43}/cat.png")

    assert (first.status_code, first.headers["x-content-type-options"]) == (302, "nosniff")
    assert (read.content, read.headers["content-type"]) == (b"png bytes", "image/png")
    assert read.headers["content-disposition"].startswith("inline")
    assert html.headers["content-disposition"].startswith("attachment")
    assert [other_name.status_code, other_token.status_code] == [404, 404]
    assert other_token.headers["content-type"] == "application/problem+json"


async def test_a_job_that_failed_shows_the_link_of_its_long_log(
    http: httpx2.AsyncClient, node: ActingNode, app: str, storage: Storage
) -> None:
    job = (await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})).json()
    claim = await node.claim()
    key = job_logs.key_of(claim.tenant_id, claim.job_id, claim.attempt)
    stored = await storage.put_stream(key, chunks_of("längst".encode()), job_logs.CONTENT_TYPE, MEGABYTE)
    file = LogFile("t" * 32, stored.size_bytes, stored.sha256, lines=1, dropped_lines=2)
    await job_logs.record(node.db, claim.lease, "1 further log line", file)
    await node.fail(claim, "broken")

    shown = (await http.get(job["links"]["self"])).json()
    events = (await http.get(job["links"]["events"])).text
    asked = {"params": {"job_id": job["id"]}, "headers": {"accept": "application/json"}}
    page = (await http.get("/v1/events", **asked)).json()

    link = shown["attempts"][0]["log_file"]["url"]
    async with httpx2.AsyncClient() as anybody:
        read = await anybody.get(link, follow_redirects=True)
        other = await anybody.get(link.replace("ttt", "uuu"), follow_redirects=True)
    assert (shown["state"], shown["outputs"]) == ("failed", [])
    assert link == f"{str(http.base_url).rstrip('/')}/outputs/{'t' * 32}/log.txt"
    assert f'"url":"{link}"' in events
    assert link in [event["data"].get("log_file", {}).get("url") for event in page["events"]]
    assert (read.text, read.headers["content-disposition"]) == ("längst", "inline; filename*=UTF-8''log.txt")
    assert other.status_code == 404


@pytest.mark.parametrize("kind", ["text/html\n", "text/é", "text", "a_b/c", "/", "x/y/z"])
async def test_what_is_no_media_type_is_refused(http: httpx2.AsyncClient, kind: str) -> None:
    answer = await http.post("/v1/files/uploads", json={"file_name": "x", "content_type": kind, "size_bytes": 1})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_a_media_type_is_kept_in_small_letters(http: httpx2.AsyncClient) -> None:
    body = {"file_name": "x", "content_type": "Image/SVG+xml", "size_bytes": 1}

    begun = (await http.post("/v1/files/uploads", json=body)).json()
    sent = (await http.post("/v1/files", content=b"x", headers={"content-type": "Image/SVG+xml"})).json()

    assert begun["upload"]["headers"]["content-type"] == "image/svg+xml"
    assert [begun["file"]["content_type"], sent["content_type"]] == ["image/svg+xml"] * 2


async def test_the_link_of_an_output_can_be_asked_for_its_head(
    http: httpx2.AsyncClient, node: ActingNode, app: str, storage: Storage
) -> None:
    await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})
    claim = await node.claim()
    picture = await node.store(storage, claim, "cat.png", "/image", b"png bytes", "image/png")
    await node.succeed(claim, {"image": {"url": f"/outputs/{picture.token}/cat.png"}}, [picture])

    async with httpx2.AsyncClient(base_url=http.base_url) as anybody:
        first = await anybody.head(f"/outputs/{picture.token}/cat.png")
        last = await anybody.head(first.headers["location"])
        other = await anybody.head(f"/outputs/{'x' * 43}/cat.png")

    assert (first.status_code, last.status_code, other.status_code) == (302, 200, 404)
    assert (last.headers["content-length"], last.headers["content-type"]) == ("9", "image/png")


async def test_a_lost_object_store_is_said_so(engines: Engines, database_url: str, http: httpx2.AsyncClient) -> None:
    settings = api_settings(engines, database_url, s3_endpoint_url="http://127.0.0.1:1")
    async with (
        running_api(settings) as lost,
        httpx2.AsyncClient(base_url=lost.url, headers=http.headers, timeout=30) as client,
    ):
        answer = await client.post("/v1/files", content=b"x")

    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_the_token_of_an_output_is_in_no_log_line(http: httpx2.AsyncClient) -> None:
    token = "t0ken" * 8

    with structlog.testing.capture_logs() as lines:
        await http.get(f"/outputs/{token}/cat.png")

    assert token not in str(lines)
    assert [line["path"] for line in lines if line["event"] == "request"] == ["/outputs/***/cat.png"]


async def test_an_upload_that_cannot_be_recorded_leaves_no_object(
    http: httpx2.AsyncClient, caller: Tenant, db: AsyncEngine, storage: Storage
) -> None:
    async with db.begin() as connection:
        await connection.execute(text("ALTER TABLE files ADD CONSTRAINT refuse CHECK (file_name <> 'refused')"))

    answer = await http.post("/v1/files?file_name=refused", content=b"x")

    assert answer.status_code == 500
    assert await storage.delete_prefix(f"{caller.id.hex}/files/") == 0
    async with db.begin() as connection:
        await connection.execute(text("ALTER TABLE files DROP CONSTRAINT refuse"))
