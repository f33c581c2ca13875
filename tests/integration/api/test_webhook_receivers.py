"""Receivers that never answer, hostile addresses, sending by hand, the log; test_webhook_schedule.py has the rest."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control.deliverer import AT_A_RECEIVER
from tests.support.acting_node import ActingNode
from tests.support.receiver import Reply, running_receiver
from tests.support.webhooks import deliverer, finish_job, logged, make_due, one_round, set_url

pytestmark = pytest.mark.anyio

PAUSES_S = (0.05, 0.1, 0.2, 0.4)
"""The schedule, shortened: five tries."""
NO_ANSWER = Reply(None)


async def test_a_receiver_that_never_answers_delays_its_own_deliveries_alone(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    async with (
        running_receiver(*[NO_ANSWER] * 50) as slow,
        running_receiver() as well,
        deliverer(db, "127.0.0.1", timeout_s=1.0, pauses_s=PAUSES_S) as sender,
    ):
        for _ in range(AT_A_RECEIVER + 2):
            await finish_job(http, node, app, f"http://{slow.address}/")
        await sender.deliver_due()
        job_id = await finish_job(http, node, app, f"http://{well.address}/")
        async with asyncio.timeout(20):
            while (await logged(http, job_id))["state"] == "pending":
                await sender.deliver_due()

        assert [one.path for one in well.received] == ["/"]
        assert len(slow.received) <= AT_A_RECEIVER


async def test_a_try_whose_sender_dies_is_in_the_log_and_the_next_one_has_the_same_id(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    async with running_receiver(NO_ANSWER) as receiver:
        job_id = await finish_job(http, node, app, f"http://{receiver.address}/")
        async with deliverer(db, "127.0.0.1") as dying:
            await dying.deliver_due()
            await receiver.has_received.wait()
            for task in list(dying._running):
                task.cancel()
        await make_due(db, job_id)
        async with deliverer(db, "127.0.0.1") as sender:
            await one_round(sender)

        log = await logged(http, job_id)
        assert [(made["attempt"], made["status"], made["duration_s"] is None) for made in log["tries"]] == [
            (1, None, True),
            (2, 200, False),
        ]
        assert len({one.headers["webhook-id"] for one in receiver.received}) == 1


async def test_the_first_1024_bytes_of_an_answer_are_kept_and_text_that_is_none_does_no_harm(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    async with running_receiver(Reply(200, body=b"\xff\0" + b"a" * 5000)) as receiver:
        job_id = await finish_job(http, node, app, f"http://{receiver.address}/")
        async with deliverer(db, "127.0.0.1") as sender:
            await one_round(sender)

    [made] = (await logged(http, job_id))["tries"]
    assert made["answer"] == "\N{REPLACEMENT CHARACTER} " + "a" * 1022


@pytest.mark.parametrize("statuses", [[410], [200]], ids=["given up", "delivered"])
async def test_a_delivery_is_sent_again_by_hand_with_the_same_id_and_all_tries_anew(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, statuses: list[int]
) -> None:
    three_tries = {"pauses_s": PAUSES_S[:2]}
    async with running_receiver(*statuses, 500, 500) as receiver, deliverer(db, "127.0.0.1", **three_tries) as sender:
        job_id = await finish_job(http, node, app, f"http://{receiver.address}/")
        await one_round(sender)
        first = await logged(http, job_id)

        asked = await http.post(f"/v1/deliveries/{first['id']}/redeliver")
        for _ in range(3):
            await make_due(db, job_id)
            await one_round(sender)

        last = await logged(http, job_id)
    assert (asked.status_code, asked.json()["state"]) == (202, "pending")
    assert ([made["status"] for made in last["tries"]], last["state"]) == ([*statuses, 500, 500, 200], "delivered")
    assert {one.headers["webhook-id"] for one in receiver.received} == {first["id"]}


async def test_the_log_of_a_job_that_is_not_final_is_empty(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    body = {"app": app, "input": {"prompt": "x"}, "webhook_url": "https://example.com/"}
    job_id = (await http.post("/v1/jobs", json=body)).json()["id"]

    assert (await http.get(f"/v1/jobs/{job_id}/deliveries")).json() == {"deliveries": []}


async def test_another_tenants_delivery_is_neither_shown_nor_sent(
    http: httpx2.AsyncClient, stranger: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    job_id = await finish_job(http, node, app, "https://example.com/")
    delivery = await logged(http, job_id)

    answers = [
        await stranger.get(f"/v1/jobs/{job_id}/deliveries"),
        await stranger.post(f"/v1/deliveries/{delivery['id']}/redeliver"),
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "not_found")}
    assert (await logged(http, job_id)) == delivery


HOSTILE = [
    "https://2130706433/",
    "https://0x7f000001/",
    "https://017700000001/",
    "https://127.1/",
    "https://0/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[fe80::1]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://10.0.0.1/",
    "https://224.0.0.1/",
    "https://localhost/",
    "https://8.8.8.8:22/",
    "https://user@8.8.8.8/",
    "http://8.8.8.8/",
    "ftp://8.8.8.8/",
    "https://rebinding.example/",
    "https://half-private.example/",
]


async def test_no_address_that_may_not_be_called_is_called_however_it_is_written(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {url: await finish_job(http, node, app, "https://example.com/") for url in HOSTILE}
    for url, job_id in jobs.items():
        await set_url(db, job_id, url)
    # A name that was public when it was looked up before, and is not now; and one that is both.
    answers = {"rebinding.example": ["127.0.0.1"], "half-private.example": ["93.184.216.34", "10.0.0.1"]}
    loop = asyncio.get_running_loop()
    look_up, connected = loop.getaddrinfo, list[object]()

    async def resolve(host: object, port: object, **kinds: int) -> object:
        found = [await look_up(address, port, **kinds) for address in answers.get(str(host), [host])]
        return [entry for entries in found for entry in entries]

    async def connect(*address: object, **_: object) -> None:
        connected.append(address)
        raise OSError("no connection leaves this test")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "getaddrinfo", resolve)
        patched.setattr("anyio.connect_tcp", connect)
        async with deliverer(db) as sender:
            await one_round(sender)

    for url, job_id in jobs.items():
        [made] = (await logged(http, job_id))["tries"]
        assert made["error"].startswith(("may not be called", "is no URL")), (url, made["error"])
    assert connected == []
