"""What a receiver that is down, slow, moved, gone, busy or broken is sent, and what the log says of it afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control.deliverer import AT_A_RECEIVER
from stoker.local.ports import free_ports
from tests.support.acting_node import ActingNode
from tests.support.receiver import Receiver, Reply, running_receiver
from tests.support.webhooks import deliverer, finish_job, logged, make_due, one_round, set_url

pytestmark = pytest.mark.anyio

PAUSES_S = (0.05, 0.1, 0.2, 0.4)
"""The schedule, shortened: five tries."""
NO_ANSWER = Reply(None)
ANSWERS: dict[str, list[int | Reply]] = {
    "slow": [NO_ANSWER, NO_ANSWER],
    "moved": [Reply(302, "location: http://{elsewhere}/new\r\n")] * 5,
    "gone": [410],
    "busy": [Reply(429, "retry-after: 1\r\n", b"come back later")],
    "broken": [500, 503, 502],
    "well": [],
}
# Each receiver's statuses in the order of its tries, and how the delivery ends; None: there was no answer.
LOG = {
    "down": ([None, None, 200], "delivered"),
    "slow": ([None, None, 200], "delivered"),
    "moved": ([302] * 5, "failed"),
    "gone": ([410], "failed"),
    "busy": ([429, 200], "delivered"),
    "broken": ([500, 503, 502, 200], "delivered"),
    "well": ([200], "delivered"),
}


@asynccontextmanager
async def all_receivers() -> AsyncIterator[dict[str, Receiver]]:
    async with AsyncExitStack() as stack:
        elsewhere = await stack.enter_async_context(running_receiver())
        made = {"elsewhere": elsewhere}
        for name, replies in ANSWERS.items():
            told = [
                Reply(reply.status, reply.headers.format(elsewhere=elsewhere.address), reply.body)
                if isinstance(reply, Reply)
                else reply
                for reply in replies
            ]
            made[name] = await stack.enter_async_context(running_receiver(*told))
        yield made


async def test_receivers_of_every_kind_get_each_event_under_one_id_and_the_log_has_every_try(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    async with AsyncExitStack() as stack:
        receivers = await stack.enter_async_context(all_receivers())
        [port] = free_ports(1)
        addresses = {name: receivers[name].address for name in ANSWERS} | {"down": f"127.0.0.1:{port}"}
        jobs = {name: await finish_job(http, node, app, f"http://{address}/") for name, address in addresses.items()}
        sender = await stack.enter_async_context(deliverer(db, "127.0.0.1", timeout_s=0.3, pauses_s=PAUSES_S))
        async with asyncio.timeout(30):
            while pending := [name for name in jobs if (await logged(http, jobs[name]))["state"] == "pending"]:
                await one_round(sender)
                if "down" in pending and "down" not in receivers and tried(await logged(http, jobs["down"])) >= 2:
                    receivers["down"] = await stack.enter_async_context(running_receiver(port=port))
        logs = {name: await logged(http, job_id) for name, job_id in jobs.items()}

    for name, log in logs.items():
        assert ([made["status"] for made in log["tries"]], log["state"]) == LOG[name], name
        arrived = receivers[name].received
        # Each event once per id, whatever the number of tries; what was refused at the door is in the log alone.
        assert len(arrived) == len(log["tries"]) - (2 if name == "down" else 0)
        assert {one.headers["webhook-id"] for one in arrived} == {log["id"]}
        assert {json.loads(one.body)["request_id"] for one in arrived} == {jobs[name]}
        assert len({one.body for one in arrived}) == 1
        # Never sooner than the schedule says, and than the receiver asked for.
        for before, after, pause_s in zip(arrived, arrived[1:], PAUSES_S, strict=False):
            assert after.at - before.at >= (1.0 if name == "busy" else 0.9 * pause_s)
    assert receivers["elsewhere"].received == []  # no redirect was followed
    assert logs["busy"]["tries"][0]["answer"] == "come back later"
    assert "ConnectError" in logs["down"]["tries"][0]["error"]
    assert "Timeout" in logs["slow"]["tries"][0]["error"]


def tried(log: dict[str, list[dict[str, object]]]) -> int:
    return sum(made["duration_s"] is not None for made in log["tries"])


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
    async with running_receiver(*statuses, 500, 500) as receiver, deliverer(db, "127.0.0.1") as sender:
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
