"""Apps that call apps, on real nodes: what parents, children and those who follow them see."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from stoker import App, children, jobs
from stoker.local.engines import Engines
from stoker.states import JobState
from tests.integration.node.conftest import QUICK
from tests.support.nodes import PATIENCE_S, Desk, NodeProcess, eventually, running_node

pytestmark = pytest.mark.anyio

IMPATIENT = {"STOKER_MOST_WAITING": "2", "STOKER_ALONE_S": "0.5"}
PARENT, CHILD = "tests.apps.family:Parent", "tests.apps.family:Child"


PAGE = Path(__file__).parents[3] / "docs" / "writing-apps.md"


@pytest.fixture(scope="module")
def node(engines: Engines, database_url: str, node_dir: Path) -> Iterator[NodeProcess]:
    example = re.search(r"## Calling another app\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example
    module = node_dir / "books.py"
    module.write_text(example[1])
    apps = [PARENT, CHILD, f"{module}:Printer", f"{module}:Publisher"]
    with running_node(engines, database_url, node_dir, apps, **QUICK, **IMPATIENT) as running:
        yield running


async def test_a_parent_gets_its_childs_result_and_its_file(node: NodeProcess, desk: Desk) -> None:
    job_id = await desk.submit("tests/parent", text="good news")

    job = await desk.final(job_id)

    [child] = await children_of(desk, job_id)
    said = await desk.get(child)
    assert (job.state, job.result["child"]) == (JobState.SUCCEEDED, "good news")
    assert [output.sha256 for output in job.outputs] == [output.sha256 for output in said.outputs]
    assert (said.parent_id, said.attempt, job.attempt) == (job_id, 1, 1)
    assert job.attempts[0].phases["children"] > 0
    lines = [data["message"] for kind, data in await desk.events(job_id) if kind == "log"]
    told = f"child {child} of tests/child"
    assert lines == [f"{told} started", f"{told} succeeded", "the file says good news"]


async def test_a_parent_hands_a_file_that_it_has_just_made_to_its_child(
    node: NodeProcess, desk: Desk, node_dir: Path
) -> None:
    job_id = await desk.submit("tests/parent", "/note", text="by hand")

    job = await desk.final(job_id)

    [child] = await children_of(desk, job_id)
    assert (job.state, job.result["child"], len(job.outputs)) == (JobState.SUCCEEDED, "by hand", 1)
    assert re.fullmatch("file_[0-9a-f]{32}", (await desk.get(child)).input["file"]["url"])
    assert not await asyncio.to_thread(lambda: list(node_dir.rglob(f"{job_id}*"))), "nothing of it is left in the spool"


async def test_a_child_that_fails_fails_its_parent_by_name(node: NodeProcess, desk: Desk) -> None:
    job_id = await desk.submit("tests/parent", text="x", fail=True)
    await desk.until(job_id, lambda job: job.state is JobState.SCHEDULED)

    async with desk.db.begin() as tx:
        await tx.execute(text("UPDATE jobs SET available_at = stoker_now() WHERE id = :id"), {"id": job_id})
    assert await jobs.promote_due(desk.db) == ["tests/parent"]
    desk.ring("tests/parent")
    job = await desk.final(job_id)

    first, second = await children_of(desk, job_id)
    assert first != second
    assert job.attempt == 2
    assert job.error is not None
    assert job.error["code"] == "child_failed"
    assert job.error["message"].startswith(
        f"child {second} of tests/child failed: app_error: ValueError: the child's own"
    )
    assert "family.py" in job.error["traceback"]


async def test_an_app_may_forgive_a_child_and_learns_which_and_why(node: NodeProcess, desk: Desk) -> None:
    job_id = await desk.submit("tests/parent", "/forgiving", text="x", fail=True)

    job = await desk.final(job_id)

    [child] = await children_of(desk, job_id)
    assert job.result["child"] == f"{child} app_error ValueError: the child's own words"


async def test_a_request_that_breaks_the_other_apps_schema_starts_nothing(node: NodeProcess, desk: Desk) -> None:
    job_id = await desk.submit("tests/parent", "/wrong")

    job = await desk.final(job_id)

    assert job.error is not None
    assert (job.error["code"], "txet" in job.error["message"]) == ("call_refused", True)
    assert await children_of(desk, job_id) == []


async def test_more_parents_than_may_wait_wait_for_children_that_need_the_same_seats(
    node: NodeProcess, desk: Desk
) -> None:
    numbers = [str(number) for number in range(3 * App.max_multiplexing)]
    parents = [await desk.submit("tests/parent", "/within", text=number) for number in numbers]

    done = [await desk.final(job_id) for job_id in parents]

    assert [job.result["child"] for job in done] == numbers
    assert {job.attempt for job in done} == {1}


async def test_a_child_that_ends_its_process_is_charged_alone_and_not_its_waiting_parent(
    node: NodeProcess, desk: Desk
) -> None:
    job_id = await desk.submit("tests/parent", "/bad-company")

    job = await desk.final(job_id)

    [child] = await children_of(desk, job_id)
    codes = [attempt.error["code"] for attempt in (await desk.get(child)).attempts if attempt.error]
    ends = [attempt.error["code"] if attempt.error else attempt.outcome for attempt in job.attempts]
    assert codes == ["crashed_beside", "worker_crashed", "worker_crashed"], "charged once it is known who it is"
    assert (ends[0], ends[-1]) == ("crashed_beside", "child_failed")
    assert set(ends[1:-1]) <= {"released"}
    assert job.error is not None
    assert job.error["code"] == "child_failed"


async def test_a_parent_that_is_killed_while_it_waits_finds_its_child_with_its_next_attempt(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    job_id = await desk.submit("tests/parent", text="kept", wait_for=str(end))
    child = await eventually(lambda: first_child(desk, job_id), lambda: "a child")
    await desk.says(child, "at work")

    async with desk.db.begin() as tx:
        os.kill((await tx.execute(text("SELECT pids[1] FROM runners WHERE app = 'tests/parent'"))).scalar_one(), 9)
    await desk.says(job_id, f"child {child} of tests/child found again")
    end.touch()
    job = await desk.final(job_id)

    assert (job.state, job.attempt, job.result["child"]) == (JobState.SUCCEEDED, 2, "kept")
    assert await children_of(desk, job_id) == [child]
    assert (await desk.get(child)).attempt == 1


async def test_a_cancel_of_the_parent_ends_its_wait_and_its_child_at_once(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    job_id = await desk.submit("tests/parent", wait_for=str(tmp_path / "never"))
    child = await eventually(lambda: first_child(desk, job_id), lambda: "a child")
    await desk.says(child, "at work")

    await jobs.request_cancel(desk.db, job_id, None)
    await children.cancel_below(desk.db, job_id)

    assert (await desk.final(job_id)).state is JobState.CANCELLED
    assert (await desk.final(child)).state is JobState.CANCELLED


async def test_a_call_that_is_given_up_leaves_its_child_which_ends_with_the_parent(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    job_id = await desk.submit("tests/parent", "/impatient", wait_for=str(tmp_path / "never"))
    await desk.says(await eventually(lambda: first_child(desk, job_id), lambda: "a child"), "at work")

    (tmp_path / "never.given-up").touch()
    job = await desk.final(job_id)
    await eventually(lambda: orphans_cancelled(desk), lambda: "an orphan")

    [child] = await children_of(desk, job_id)
    assert job.result["child"] == "given up"
    assert (await desk.final(child)).state is JobState.CANCELLED


async def test_the_apps_of_the_page_about_writing_apps_print_a_book(node: NodeProcess, desk: Desk) -> None:
    job_id = await desk.submit("me/publisher", chapters=["one", "two"] * 5)  # more calls at once than turns

    job = await desk.final(job_id)

    made = [await desk.get(child) for child in await children_of(desk, job_id)]
    assert job.state is JobState.SUCCEEDED, job.error
    assert len(made) == 10
    assert {page["url"] for page in job.result["pages"]} == {child.outputs[0].link for child in made}


async def test_a_parent_whose_node_dies_or_drains_goes_on_with_the_child_that_it_had(
    node: NodeProcess, desk: Desk, engines: Engines, database_url: str, node_dir: Path, tmp_path: Path
) -> None:
    job_id = await desk.submit("tests/parent", wait_for=str(tmp_path / "never"))
    child = await eventually(lambda: first_child(desk, job_id), lambda: "a child")
    await desk.says(child, "at work")

    node.kill()  # the last that this file asks of it
    with running_node(
        engines, database_url, node_dir, [PARENT, CHILD], arguments=["--drain-grace-s", "0"], **QUICK
    ) as again:
        await desk.says(job_id, f"child {child} of tests/child found again")
        assert again.ask_to_stop().have_ended(within_s=PATIENCE_S)

    for given_back in [await desk.get(job_id), await desk.get(child)]:
        assert given_back.state is JobState.QUEUED
        assert [attempt.outcome for attempt in given_back.attempts][::2] == ["lease_lost"]
        assert {attempt.outcome for attempt in given_back.attempts} <= {"lease_lost", "released"}
    assert await children_of(desk, job_id) == [child]
    assert await children.cancel_orphans(desk.db) == []


async def orphans_cancelled(desk: Desk) -> bool | None:
    return bool(await children.cancel_orphans(desk.db)) or None


async def first_child(desk: Desk, job_id: UUID) -> UUID | None:
    found = await children_of(desk, job_id)
    return found[0] if found else None


async def children_of(desk: Desk, job_id: UUID) -> list[UUID]:
    async with desk.db.begin() as tx:
        found = await tx.execute(
            text("SELECT child_id FROM job_children WHERE parent_id = :id ORDER BY generation, child_id"),
            {"id": job_id},
        )
        return [row.child_id for row in found]
