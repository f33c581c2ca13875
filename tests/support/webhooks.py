"""What tests of webhooks do again and again: a job that is final, a sender, its log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control.deliverer import Deliverer
from tests.support.acting_node import ActingNode

PUBLIC_URL = "https://stoker.example"


@asynccontextmanager
async def deliverer(db: AsyncEngine, *allowed: str, **changes: Any) -> AsyncIterator[Deliverer]:
    made = Deliverer(db, public_url=PUBLIC_URL, allowed_hosts=frozenset(allowed), **changes)
    try:
        yield made
    finally:
        await made.close()


async def one_round(sender: Deliverer) -> None:
    await sender.deliver_due()
    await sender.settle()


async def finish_job(http: httpx2.AsyncClient, node: ActingNode, app: str, url: str) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}, "webhook_url": url})
    assert answer.status_code == 202, answer.text
    await node.succeed(await node.claim(), {"answer": 42})
    job_id: str = answer.json()["id"]
    return job_id


async def logged(http: httpx2.AsyncClient, job_id: str) -> dict[str, Any]:
    """The one delivery of the job, as its tenant sees it."""
    answer = await http.get(f"/v1/jobs/{job_id}/deliveries")
    assert answer.status_code == 200, answer.text
    [delivery] = answer.json()["deliveries"]
    return dict(delivery)


async def make_due(db: AsyncEngine, job_id: str) -> None:
    async with db.begin() as connection:
        due = "UPDATE webhook_deliveries SET next_attempt_at = stoker_now() WHERE job_id = :id"
        await connection.execute(text(due), {"id": job_id})


async def set_url(db: AsyncEngine, job_id: str, url: str) -> None:
    """As if the address had come past the check that a submit makes."""
    async with db.begin() as connection:
        change = text("UPDATE webhook_deliveries SET url = :url WHERE job_id = :id")
        await connection.execute(change, {"url": url, "id": job_id})
