"""Reads of jobs and files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from stoker import apps, job_queries, jobs, stored_files
from stoker.errors import InvalidRequest, NotFound
from stoker.job_queries import JobFilters
from stoker.job_values import NewJob
from stoker.states import JobState
from tests.support.job_world import USER_ERROR, World, manifest

pytestmark = pytest.mark.anyio


async def test_a_tenants_jobs_come_newest_first_in_pages(world: World) -> None:
    await world.submit(tenant_id=await world.tenant("other"))
    ids = [(await world.submit()).job_id for _ in range(5)]

    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = await job_queries.list_jobs(world.db, world.tenant_id, cursor=cursor, limit=2)
        seen += [job.id for job in page.jobs]
        cursor, pages = page.next_cursor, pages + 1

    assert seen == sorted(ids, reverse=True)
    assert pages == 3
    assert len((await job_queries.list_jobs(world.db, None)).jobs) == 6


async def test_jobs_are_found_by_app_state_tag_and_time(world: World) -> None:
    node = await world.node()
    failed = await world.submit(tags=("night", "a"))
    await node.finish(await node.take(), USER_ERROR)
    await world.set_clock(10)
    other_app = await apps.publish(world.db, manifest("acme/another"))
    late = await world.submit(version=other_app, tags=("day",))

    async def found(**filters: object) -> list[object]:
        page = await job_queries.list_jobs(world.db, world.tenant_id, JobFilters(**filters))
        return [job.id for job in page.jobs]

    assert await found(app="acme/another") == [late.job_id]
    assert await found(state=JobState.FAILED) == [failed.job_id]
    assert await found(tag="night") == [failed.job_id]
    assert await found(since=world.began.replace(year=world.began.year + 1)) == []
    assert await found(app="acme/another", tag="night") == []
    assert await found() == [late.job_id, failed.job_id]


async def test_a_cursor_that_was_never_given_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest):
        await job_queries.list_jobs(world.db, None, cursor="x' OR 1=1")


async def test_a_job_says_whether_a_live_node_serves_it(world: World) -> None:
    job = await world.submit()
    assert (await job_queries.get(world.db, job.job_id, None)).served is False

    await world.node()

    assert (await job_queries.get(world.db, job.job_id, None)).served is True
    await world.set_clock(16)
    assert (await job_queries.get(world.db, job.job_id, None)).served is False


async def test_an_output_is_found_by_its_token_alone(world: World) -> None:
    node = await world.node()
    await world.submit()
    claim = await node.take()
    output = jobs.Output(world.tenant_id, "a.png", "", "t/j/1/a.png", "image/png", 3, "ab", "x" * 43)
    await jobs.finish(world.db, claim.lease, jobs.Succeeded({}, (output,)), jobs.Usage())

    found = await job_queries.output_by_token(world.db, "x" * 43)

    assert (found.job_id, found.key, found.tenant_id) == (claim.job_id, "t/j/1/a.png", world.tenant_id)
    for wrong in ("", "x" * 42, "\0"):
        with pytest.raises(NotFound):
            await job_queries.output_by_token(world.db, wrong)


async def test_a_file_belongs_to_its_tenant(world: World) -> None:
    file_id = stored_files.new_file_id()
    row = {"key": f"k/{file_id}", "content_type": "image/png", "file_name": "a.png", "size_bytes": 3, "sha256": "ab"}

    stored = await stored_files.insert(world.db, file_id=file_id, tenant_id=world.tenant_id, **row)

    assert await stored_files.get(world.db, file_id, world.tenant_id) == stored
    with pytest.raises(NotFound):
        await stored_files.get(world.db, file_id, await world.tenant("other"))


@pytest.mark.parametrize(
    "asked", [{}, {"run_at": datetime(2099, 1, 1, tzinfo=UTC)}, {"tags": ("a",), "max_attempts": 3}]
)
@pytest.mark.parametrize("is_served", [True, False])
async def test_what_a_submit_answers_is_what_a_reader_sees(
    world: World, asked: dict[str, Any], is_served: bool
) -> None:
    if is_served:
        await world.node()
    await world.submit()
    await world.submit(priority=9)
    new = NewJob(tenant_id=world.tenant_id, version=world.default, endpoint="/", input={"prompt": "x"}, **asked)

    told = job_queries.just_submitted(new, await jobs.submit(world.db, new))

    assert told is not None
    assert told == await job_queries.get(world.db, told.id, world.tenant_id)
    assert (told.served, told.queue_position) == (is_served, None if "run_at" in asked else 1)
