"""What Postgres and the node are told of a job that waits for another app's, whatever becomes of the call."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, children, jobs
from stoker.errors import ChildCancelled
from stoker.jobs import ClaimRequest, Lease, QueueKey
from tests.support.job_world import endpoint, manifest
from tests.support.nodes import Desk, eventually
from worker_node.attempt import Attempt
from worker_node.children import Calls
from worker_node.engines import Engines
from worker_node.host_values import AppCall

pytestmark = pytest.mark.anyio

COUNTS = text("SELECT counts FROM job_leases WHERE job_id = :id")


@pytest.fixture
async def attempt(engines_of_a_node: Engines, desk: Desk) -> Attempt:
    """Of a job that may call others."""
    version = await apps.publish(
        desk.db, manifest(f"tests/caller-{uuid4().hex[:8]}", endpoint(uses_gpus=False), num_gpus=0)
    )
    await desk.submit(version.app, ring=False)
    request = ClaimRequest("a node", uuid4(), (QueueKey(version.id, uses_gpus=False),), "runner", 600.0)
    claim = await jobs.claim(desk.db, request)
    assert claim is not None
    return Attempt(claim, safe_until=1e9)


@pytest.mark.parametrize("lost", [True, False], ids=["when it begins to wait", "when it goes on"])
async def test_a_call_that_is_given_up_while_postgres_is_told_leaves_its_job_at_work(
    engines_of_a_node: Engines, desk: Desk, attempt: Attempt, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    was_told, may_answer = asyncio.Event(), asyncio.Event()
    tell = children.set_waiting

    async def answer_late(db: AsyncEngine, parent: Lease, *, waits: bool) -> bool:
        told = await tell(db, parent, waits=waits)
        if waits is lost:
            was_told.set()
            await may_answer.wait()
        return told

    monkeypatch.setattr(children, "set_waiting", answer_late)
    call = asyncio.create_task(Calls(engines_of_a_node, attempt).call(AppCall(attempt.claim.app, "/", {}, None)))
    if not lost:
        await eventually(lambda: started(desk, attempt), lambda: "a child")
        call.cancel()
    await was_told.wait()

    call.cancel()
    may_answer.set()
    await asyncio.wait([call])

    await eventually(lambda: is_at_work(desk, attempt), lambda: "the job to count again")


async def test_many_calls_of_one_child_are_one_line_of_its_start_and_one_of_its_end(
    engines_of_a_node: Engines, desk: Desk, attempt: Attempt
) -> None:
    calls = Calls(engines_of_a_node, attempt)
    asked = AppCall(attempt.claim.app, "/", {}, "the same")
    looking = asyncio.create_task(engines_of_a_node.ends.run())
    first = asyncio.create_task(calls.call(asked))
    await eventually(lambda: started(desk, attempt), lambda: "a child")

    others = [asyncio.create_task(calls.call(asked)) for _ in range(9)]
    [child] = [job.id for job in (await desk.get(attempt.claim.job_id)).family.children]
    await jobs.request_cancel(desk.db, child, None)
    ended = await asyncio.gather(first, *others, return_exceptions=True)
    looking.cancel()

    assert {type(error) for error in ended} == {ChildCancelled}
    said = [
        data["message"].rsplit(" ", 1)[1] for kind, data in await desk.events(attempt.claim.job_id) if kind == "log"
    ]
    assert said == ["started", "cancelled"]


async def started(desk: Desk, attempt: Attempt) -> bool | None:
    async with desk.db.connect() as connection:
        asked = text("SELECT count(*) FROM job_children WHERE parent_id = :id")
        return (await connection.execute(asked, {"id": attempt.claim.job_id})).scalar_one() == 1 or None


async def is_at_work(desk: Desk, attempt: Attempt) -> bool | None:
    async with desk.db.connect() as connection:
        counts = (await connection.execute(COUNTS, {"id": attempt.claim.job_id})).scalar_one()
    return (counts and not attempt.waits_for_children) or None
