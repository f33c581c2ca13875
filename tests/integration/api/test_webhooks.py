"""Webhooks: signed, retried, recorded, and never sent where they may not go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control import signatures
from api.control.deliverer import Deliverer
from tests.support.acting_node import ActingNode
from tests.support.receiver import Receiver, running_receiver
from tests.support.tenants import Tenant

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def deliverer(db: AsyncEngine, *allowed: str) -> AsyncIterator[Deliverer]:
    made = Deliverer(db, public_url="https://stoker.example", allowed_hosts=frozenset(allowed))
    try:
        yield made
    finally:
        await made.close()


async def finish_job(http: httpx2.AsyncClient, node: ActingNode, app: str, url: str) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}, "webhook_url": url})
    assert answer.status_code == 202, answer.text
    await node.succeed(await node.claim(), {"answer": 42})
    job_id: str = answer.json()["id"]
    return job_id


async def delivery(db: AsyncEngine, job_id: str) -> dict[str, Any]:
    async with db.connect() as connection:
        row = await connection.execute(
            text(
                "SELECT d.*, extract(epoch FROM next_attempt_at - stoker_now()) AS next_in_s,"
                " (SELECT array_agg(status ORDER BY attempt) FROM delivery_attempts WHERE delivery_id = d.id) AS tried"
                " FROM webhook_deliveries d WHERE job_id = :id"
            ),
            {"id": job_id},
        )
        return dict(row.mappings().one())


async def make_due(db: AsyncEngine, job_id: str) -> None:
    async with db.begin() as connection:
        due = "UPDATE webhook_deliveries SET next_attempt_at = stoker_now() WHERE job_id = :id"
        await connection.execute(text(due), {"id": job_id})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


async def test_a_finished_job_is_delivered_once_signed_for_its_tenant(
    http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    job_id = await finish_job(http, node, app, f"http://{receiver.address}/hook?x=1")

    async with deliverer(db, receiver.address) as sender:
        await sender.deliver_due()
        await sender.deliver_due()

    [sent] = receiver.received
    body = json.loads(sent.body)
    assert (sent.method, sent.path, sent.headers["content-type"]) == ("POST", "/hook?x=1", "application/json")
    assert (body["job_id"], body["state"], body["result"], body["error"]) == (job_id, "succeeded", {"answer": 42}, None)
    secret = signatures.tenant_secret(await signatures.signing_key(db), caller.id)
    signed = f"{sent.headers['webhook-id']}.{sent.headers['webhook-timestamp']}.".encode() + sent.body
    expected = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert sent.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    row = await delivery(db, job_id)
    assert (row["state"], row["attempts"], row["tried"]) == ("delivered", 1, [200])
    assert row["delivered_at"] is not None


async def test_a_receiver_that_is_away_is_tried_again_later_with_the_same_id(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302, 204]
    job_id = await finish_job(http, node, app, f"http://{receiver.address}/")

    async with deliverer(db, receiver.address) as sender:
        await sender.deliver_due()
        first = await delivery(db, job_id)
        await sender.deliver_due()
        for _ in range(2):
            await make_due(db, job_id)
            await sender.deliver_due()

    last = await delivery(db, job_id)
    assert (first["state"], first["attempts"], first["last_status"]) == ("pending", 1, 500)
    assert 0 < first["next_in_s"] < 10
    assert (last["state"], last["attempts"], last["tried"]) == ("delivered", 3, [500, 302, 204])
    assert len({sent.headers["webhook-id"] for sent in receiver.received}) == 1


async def test_a_receiver_that_is_gone_for_good_is_not_tried_again(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    job_id = await finish_job(http, node, app, f"http://{receiver.address}/")

    async with deliverer(db, receiver.address) as sender:
        await sender.deliver_due()

    assert (await delivery(db, job_id))["state"] == "failed"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_private_address_is_not_called_unless_it_was_named(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver, scheme: str
) -> None:
    job_id = await finish_job(http, node, app, f"{scheme}://{receiver.address}/")

    async with deliverer(db) as sender:
        await sender.deliver_due()

    row = await delivery(db, job_id)
    assert (row["state"], row["tried"]) == ("failed", [None])
    assert row["last_error"].startswith("may not be called")
    assert receiver.received == []


async def test_two_control_loops_send_a_delivery_once(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    await finish_job(http, node, app, f"http://{receiver.address}/")

    async with deliverer(db, receiver.address) as one, deliverer(db, receiver.address) as other:
        await asyncio.gather(one.deliver_due(), other.deliver_due())

    assert len(receiver.received) == 1


async def test_an_answer_without_end_is_not_read(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    asked: list[bytes] = []

    async def answer_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9000000000\r\n\r\nno gzip")
        await writer.drain()
        await reader.read()

    server = await asyncio.start_server(answer_for_ever, "127.0.0.1", 0)
    async with server:
        address = "{}:{}".format(*server.sockets[0].getsockname())
        job_id = await finish_job(http, node, app, f"http://{address}/")
        async with deliverer(db, address) as sender:
            await sender.deliver_due()

    row = await delivery(db, job_id)
    assert (row["state"], row["tried"]) == ("delivered", [200])
    assert b"accept-encoding: identity" in asked[0].lower()


@pytest.mark.parametrize("url", ["https://a..b/x", f"https://{'a' * 64}.example/", "https://[", "https://x:99999/"])
async def test_an_address_that_cannot_be_is_recorded_and_given_up(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, url: str
) -> None:
    job_id = await finish_job(http, node, app, "https://example.com/")
    async with db.begin() as connection:
        change = text("UPDATE webhook_deliveries SET url = :url WHERE job_id = :id")
        await connection.execute(change, {"url": url, "id": job_id})

    async with deliverer(db) as sender:
        await sender.deliver_due()

    row = await delivery(db, job_id)
    assert (row["state"], row["tried"]) == ("failed", [None])


async def test_a_try_that_fails_in_an_unforeseen_way_is_recorded_and_made_again_later(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    job_id = await finish_job(http, node, app, f"http://{receiver.address}/")
    too_deep = "[" * 400 + "]" * 400  # more than any writer of JSON takes
    async with db.begin() as connection:
        change = text("UPDATE jobs SET result = CAST(:result AS jsonb) WHERE id = :id")
        await connection.execute(change, {"result": too_deep, "id": job_id})

    async with deliverer(db, receiver.address) as sender:
        await sender.deliver_due()

    row = await delivery(db, job_id)
    assert (row["state"], row["attempts"], row["tried"]) == ("pending", 1, [None])
    assert 0 < row["next_in_s"] < 10
    assert row["last_error"]


@pytest.mark.parametrize(
    "url", ["https://a..b/x", f"https://{'a' * 64}.example/", "https://[", "http://example.com/", "https://u:p@x.y/"]
)
async def test_a_job_whose_webhook_would_never_be_sent_is_refused(
    http: httpx2.AsyncClient, node: ActingNode, app: str, url: str
) -> None:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}, "webhook_url": url})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["errors"][0]["loc"] == ["body", "webhook_url"]
