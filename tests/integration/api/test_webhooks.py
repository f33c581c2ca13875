"""Webhooks: signed, retried, recorded, and never sent where they may not go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from tests.support.acting_node import ActingNode
from tests.support.receiver import Receiver, running_receiver
from tests.support.webhooks import deliverer, finish_job, make_due, one_round, set_url

pytestmark = pytest.mark.anyio


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


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


async def test_a_finished_job_is_delivered_once_with_its_result_for_readers_of_both_kinds(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    job_id = await finish_job(http, node, app, f"http://{receiver.address}/hook?x=1")

    async with deliverer(db, receiver.address) as sender:
        await one_round(sender)
        await one_round(sender)

    [sent] = receiver.received
    body = json.loads(sent.body)
    assert (sent.method, sent.path, sent.headers["content-type"]) == ("POST", "/hook?x=1", "application/json")
    assert (body["request_id"], body["status"], body["payload"], body["error"]) == (job_id, "OK", {"answer": 42}, None)
    assert (body["type"], body["data"]["job_id"], body["data"]["state"]) == ("job.succeeded", job_id, "succeeded")
    assert (sent.headers["x-fal-webhook-request-id"], len(sent.headers["webhook-id"])) == (job_id, 36)
    row = await delivery(db, job_id)
    assert (row["state"], row["attempts"], row["tried"]) == ("delivered", 1, [200])
    assert row["delivered_at"] is not None


async def test_the_webhook_of_a_job_without_a_result_says_why_in_fals_words_and_in_ours(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    jobs = []
    for _ in range(2):
        body = {"app": app, "input": {"prompt": "x"}, "webhook_url": f"http://{receiver.address}/"}
        jobs.append((await http.post("/v1/jobs", json=body)).json()["id"])
    await node.fail(await node.claim(), "no such style")
    await http.post(f"/v1/jobs/{jobs[1]}/cancel")

    async with deliverer(db, receiver.address) as sender:
        await one_round(sender)

    failed, cancelled = (
        next(body for sent in receiver.received if (body := json.loads(sent.body))["request_id"] == job_id)
        for job_id in jobs
    )
    assert (failed["type"], failed["status"], failed["error"]) == ("job.failed", "ERROR", "Invalid status code: 500")
    assert failed["payload"] == {"detail": "no such style", "error_type": "runner_server_error"}
    assert failed["data"]["error"]["code"] == "app_error"
    assert (cancelled["type"], cancelled["status"]) == ("job.cancelled", "ERROR")
    assert cancelled["data"]["error"] is None


async def test_a_receiver_that_is_away_is_tried_again_later_with_the_same_id(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302, 204]
    job_id = await finish_job(http, node, app, f"http://{receiver.address}/")

    async with deliverer(db, receiver.address) as sender:
        await one_round(sender)
        first = await delivery(db, job_id)
        await one_round(sender)
        for _ in range(2):
            await make_due(db, job_id)
            await one_round(sender)

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
        await one_round(sender)

    assert (await delivery(db, job_id))["state"] == "failed"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_private_address_is_not_called_unless_it_was_named(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver, scheme: str
) -> None:
    job_id = await finish_job(http, node, app, f"{scheme}://{receiver.address}/")

    async with deliverer(db) as sender:
        await one_round(sender)

    row = await delivery(db, job_id)
    assert (row["state"], row["tried"]) == ("failed", [None])
    assert row["last_error"].startswith("may not be called")
    assert receiver.received == []


async def test_two_control_loops_send_a_delivery_once(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, receiver: Receiver
) -> None:
    await finish_job(http, node, app, f"http://{receiver.address}/")

    async with deliverer(db, receiver.address) as one, deliverer(db, receiver.address) as other:
        await asyncio.gather(one_round(one), one_round(other))

    assert len(receiver.received) == 1


async def test_an_answer_without_end_is_not_read(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.control.sending.READ_S", 0.1)
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
            await one_round(sender)

    row = await delivery(db, job_id)
    assert (row["state"], row["tried"]) == ("delivered", [200])
    assert b"accept-encoding: identity" in asked[0].lower()


@pytest.mark.parametrize("url", ["https://a..b/x", f"https://{'a' * 64}.example/", "https://[", "https://x:99999/"])
async def test_an_address_that_cannot_be_is_recorded_and_given_up(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, url: str
) -> None:
    job_id = await finish_job(http, node, app, "https://example.com/")
    await set_url(db, job_id, url)

    async with deliverer(db) as sender:
        await one_round(sender)

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

    with capture_logs() as lines:  # drawn for a terminal, so deep a value takes seconds
        async with deliverer(db, receiver.address) as sender:
            await one_round(sender)

    row = await delivery(db, job_id)
    assert (row["state"], row["attempts"], row["tried"]) == ("pending", 1, [None])
    assert 0 < row["next_in_s"] < 10
    assert row["last_error"]
    assert "delivery_failed" in {line["event"] for line in lines}


@pytest.mark.parametrize(
    "url", ["https://a..b/x", f"https://{'a' * 64}.example/", "https://[", "http://example.com/", "https://u:p@x.y/"]
)
async def test_a_job_whose_webhook_would_never_be_sent_is_refused(
    http: httpx2.AsyncClient, node: ActingNode, app: str, url: str
) -> None:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}, "webhook_url": url})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["errors"][0]["loc"] == ["body", "webhook_url"]
