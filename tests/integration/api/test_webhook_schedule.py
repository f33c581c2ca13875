"""What receivers that are down, slow, moved, gone, busy or broken are sent, and when: the table of docs/webhooks.md."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.local.ports import free_ports
from tests.support.acting_node import ActingNode
from tests.support.clock import set_clock
from tests.support.receiver import Receiver, Reply, running_receiver
from tests.support.webhooks import deliverer, finish_job, logged, one_round

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
SAID = b"<why?>" * 300
"""What a receiver answers: more than is kept."""
DOWN, SLOW = "down for six hours", "slow, then quick"
HASTE_S = 0.2
"""How long the slow one is waited for. All others have the time that a busy machine may take."""


def answer(status: int | None, headers: str = "") -> Reply:
    return Reply(status, headers, SAID)


MOST_ROUNDS = 50
NO_ANSWER = answer(None)
REPLIES = {
    "well": [answer(200)],
    DOWN: [answer(200)],
    "down for good": [],
    SLOW: [NO_ANSWER, NO_ANSWER, answer(200)],
    "moved": [answer(302, "location: http://{elsewhere}/new\r\n")] * 10,
    "gone": [answer(410)],
    "busy: `Retry-After` of ten minutes, then of a day": [
        answer(429, "retry-after: 600\r\n"),
        answer(429, "retry-after: 86400\r\n"),
        answer(200),
    ],
    "broken, then well": [answer(500), answer(503), answer(502), answer(200)],
}


@dataclass
class Told:
    """A receiver, its job with its end, and at which times of the clock it was sent something."""

    job_id: str
    receiver: Receiver
    end: datetime
    at: list[datetime] = field(default_factory=list)


@pytest.fixture
async def elsewhere() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


async def next_due(db: AsyncEngine) -> tuple[datetime, str] | None:
    """When something is to be sent, and of which job."""
    due = "SELECT next_attempt_at, job_id::text FROM webhook_deliveries WHERE state = 'pending' ORDER BY 1 LIMIT 1"
    async with db.connect() as tx:
        row = (await tx.execute(text(due))).first()
    return None if row is None else (row[0], row[1])


async def test_receivers_of_every_kind_get_each_event_under_one_id_by_the_schedule_and_the_log_has_every_try(
    http: httpx2.AsyncClient,
    node: ActingNode,
    app: str,
    db: AsyncEngine,
    elsewhere: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.control.deliverer.random", SimpleNamespace(random=lambda: 0.5))  # no jitter
    ports = dict(zip([DOWN, "down for good"], free_ports(2), strict=True))
    told: dict[str, Told] = {}
    async with AsyncExitStack() as stack:
        async with db.connect() as tx:
            began = (await tx.execute(text("SELECT date_trunc('second', now())"))).scalar_one()
        for name, replies in REPLIES.items():
            receiver = Receiver(
                [Reply(r.status, r.headers.format(elsewhere=elsewhere.address), r.body) for r in replies]
            )
            if name in ports:
                receiver.address = f"127.0.0.1:{ports[name]}"
            else:
                await stack.enter_async_context(receiver.running())
            end = began + timedelta(seconds=name == SLOW)  # so that it is due when no other is
            await set_clock(db, end)
            told[name] = Told(await finish_job(http, node, app, f"http://{receiver.address}/"), receiver, end)
        patient, hasty = [
            await stack.enter_async_context(deliverer(db, "127.0.0.1", **limit))
            for limit in ({}, {"timeout_s": HASTE_S})
        ]
        slow = told[SLOW]
        for _ in range(MOST_ROUNDS):
            due = await next_due(db)
            if due is None:
                break
            now, job_id = due
            await set_clock(db, now)
            if now >= began + timedelta(hours=6) and (port := ports.pop(DOWN, None)):
                await stack.enter_async_context(told[DOWN].receiver.running(port))
            await one_round(hasty if job_id == slow.job_id and NO_ANSWER in slow.receiver.statuses else patient)
            for each in told.values():
                each.at += [now] * (len(each.receiver.received) - len(each.at))
        assert due is None, "something is tried again without an end"
        logs = {name: await logged(http, each.job_id) for name, each in told.items()}

    table = ["| Receiver | Tries, after the job's end | Ends as |", "|---|---|---|"]
    table += [f"| {name} | {tries_of(log, told[name].end)} | {log['state']} |" for name, log in logs.items()]
    print("\n".join(table))
    assert "\n".join(table) in PAGE.read_text()
    assert elsewhere.received == []  # no redirect was followed
    for name, log in logs.items():
        reached = [made for made in log["tries"] if not (made["error"] or "").startswith("ConnectError")]
        arrived = told[name].receiver.received
        # What arrived is in the log, with its time, and each event has one id and one body, however often it is sent.
        assert [made["sent_at"] for made in reached] == [iso(at) for at in told[name].at], name
        assert {one.headers["webhook-id"] for one in arrived} <= {log["id"]}
        assert {json.loads(one.body)["request_id"] for one in arrived} <= {told[name].job_id}
        assert len({one.body for one in arrived}) <= 1
        assert [made["attempt"] for made in log["tries"]] == list(range(1, log["attempts"] + 1))
        for made in log["tries"]:
            assert made["duration_s"] >= 0
            assert made["answer"] == (SAID[:1024].decode() if made["status"] else None)
            assert (made["error"] is None) == (made["status"] == 200)


def iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def tries_of(log: dict[str, Any], end: datetime) -> str:
    """Each try's time and what came of it; where that stays the same it is said once."""
    made = [(str(datetime.fromisoformat(each["sent_at"]) - end), came_of(each)) for each in log["tries"]]
    runs = [(what, [at for at, _ in same]) for what, same in groupby(made, key=lambda pair: pair[1])]
    return " · ".join(f"{', '.join(times)}: {what}" for what, times in runs)


def came_of(made: dict[str, Any]) -> str:
    if made["status"]:
        return str(made["status"])
    return "no answer" if "Timeout" in made["error"] else "no connection"
