"""What Postgres and the node are told of a job that waits for another app's, whatever becomes of the call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, children, jobs, stored_files
from stoker.errors import ChildCancelled
from stoker.jobs import ClaimRequest, Lease, QueueKey
from stoker.storage import Storage
from tests.support.job_world import endpoint, manifest
from tests.support.nodes import Desk, eventually
from worker_node.attempt import Attempt
from worker_node.children import Calls
from worker_node.engines import Engines
from worker_node.host_values import AppCall, LocalFile

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


async def test_the_same_file_made_by_another_attempt_is_stored_once_and_finds_the_same_child(
    engines_of_a_node: Engines, desk: Desk, attempt: Attempt, storage: Storage, tmp_path: Path
) -> None:
    waiting = []
    for number, content in enumerate((b"a note", b"a note", b"another")):
        (path := tmp_path / f"{number}.txt").write_bytes(content)
        file = LocalFile("/notes/0", path, "note.txt", "text/plain", {})
        asked = AppCall(attempt.claim.app, "/", {"prompt": "x", "notes": [{"url": ""}]}, None, (file,))
        waiting.append(asyncio.create_task(Calls(engines_of_a_node, attempt).call(asked)))
        await eventually(lambda: has_lines(desk, attempt, len(waiting)), lambda: "the child")

    lines = await said(desk, attempt)
    kept = []
    for child in (await desk.get(attempt.claim.job_id)).family.children:
        [note] = (await desk.get(child.id)).input["notes"]
        kept.append(await stored_files.get(desk.db, note["url"], attempt.claim.tenant_id))
    for call in waiting:
        call.cancel()
    await asyncio.wait(waiting)

    assert [line.partition("tests/")[2].partition(" ")[2] for line in lines] == ["started", "found again", "started"]
    assert sorted(file.size_bytes for file in kept) == [6, 7]
    of_the_job = f"{attempt.claim.tenant_id}/{attempt.claim.job_id}/files/"
    assert [(file.key.startswith(of_the_job), await storage.size_of(file.key)) for file in kept] == [
        (True, file.size_bytes) for file in kept
    ]


async def said(desk: Desk, attempt: Attempt) -> list[str]:
    return [data["message"] for kind, data in await desk.events(attempt.claim.job_id) if kind == "log"]


async def has_lines(desk: Desk, attempt: Attempt, count: int) -> bool | None:
    return len(await said(desk, attempt)) >= count or None


async def started(desk: Desk, attempt: Attempt) -> bool | None:
    async with desk.db.connect() as connection:
        asked = text("SELECT count(*) FROM job_children WHERE parent_id = :id")
        return (await connection.execute(asked, {"id": attempt.claim.job_id})).scalar_one() == 1 or None


async def is_at_work(desk: Desk, attempt: Attempt) -> bool | None:
    async with desk.db.connect() as connection:
        counts = (await connection.execute(COUNTS, {"id": attempt.claim.job_id})).scalar_one()
    return (counts and not attempt.waits_for_children) or None
