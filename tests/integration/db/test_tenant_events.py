"""The events of a tenant's jobs, in pages: no row is missed, whatever the order in which transactions end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import pytest

from stoker import apps, children, event_clock, jobs, sql, tenant_events
from stoker.children import NewChild
from stoker.errors import InvalidRequest
from stoker.events import EventKind
from stoker.jobs import Claim
from stoker.states import JobState
from stoker.stored_json import as_possible
from stoker.tenant_events import START, Cursor, EventFilters, EventPage, TenantEvent
from tests.support.job_world import World, endpoint, manifest

pytestmark = pytest.mark.anyio

ALL = EventFilters()


@asynccontextmanager
async def appending(database_url: str, claim: Claim, message: str) -> AsyncIterator[None]:
    """A transaction that has appended a line to the job, and commits at the end."""
    values = {
        "job_id": claim.job_id,
        "attempt": claim.attempt,
        "count": 1,
        "kinds": ["log"],
        "data": [as_possible({"message": message})],
    }
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(sql.statement("append_events"), values)
        yield


async def read_until(world: World, after: Cursor, wanted: int, filters: EventFilters = ALL) -> EventPage:
    """The page once it has so many events: transactions of other databases of the cluster hold rows back, too."""
    async with asyncio.timeout(30):
        while True:
            page = await tenant_events.read(world.db, world.tenant_id, after, filters)
            if len(page.events) >= wanted:
                return page


def said(events: tuple[TenantEvent, ...]) -> list[object]:
    return [event.data.get("message", event.data.get("state")) for event in events]


async def run_two(world: World) -> tuple[Claim, Claim]:
    node = await world.node()
    await world.submit()
    await world.submit()
    return await node.take(), await node.take()


async def test_a_row_whose_older_transaction_commits_later_is_not_missed(world: World, database_url: str) -> None:
    first, second = await run_two(world)
    place = (await read_until(world, START, 4)).cursor

    async with appending(database_url, first, "begun first, committed last"):
        async with appending(database_url, second, "begun last, committed first"):
            pass
        meanwhile = await tenant_events.read(world.db, world.tenant_id, place, ALL)
        assert meanwhile.is_held
    both = await read_until(world, meanwhile.cursor, 2)

    assert meanwhile.events == ()
    assert said(both.events) == ["begun first, committed last", "begun last, committed first"]
    assert (await tenant_events.read(world.db, world.tenant_id, both.cursor, ALL)).events == ()


async def test_events_of_one_job_come_in_their_order_though_the_later_one_began_to_write_first(
    world: World, database_url: str
) -> None:
    claim, other = await run_two(world)
    place = (await read_until(world, START, 4)).cursor

    async with await psycopg.AsyncConnection.connect(database_url) as late:
        await late.execute("SELECT pg_current_xact_id()")
        async with appending(database_url, claim, "seq 3"):
            pass
        async with appending(database_url, other, "beside"):
            pass
        values = {"job_id": claim.job_id, "attempt": 1, "count": 1, "kinds": ["log"], "data": ['{"message": "seq 4"}']}
        await late.execute(sql.statement("append_events"), values)

    page = await read_until(world, place, 3)

    assert [message for message in said(page.events) if message != "beside"] == ["seq 3", "seq 4"]
    assert [event.seq for event in page.events if event.job_id == claim.job_id] == [3, 4]


async def test_pages_of_any_size_hold_every_row_once(world: World) -> None:
    first, second = await run_two(world)
    for claim in (first, second, first):
        lines = [(EventKind.LOG, {"message": f"{number}"}) for number in range(5)]
        await jobs.append_events(world.db, claim.lease, lines)
    whole = await read_until(world, START, 19)

    seen: list[TenantEvent] = []
    cursor, has_more = START, True
    while has_more:
        page = await tenant_events.read(world.db, world.tenant_id, cursor, ALL, scan=4)
        seen += page.events
        cursor, has_more = Cursor.parse(str(page.cursor)), page.has_more

    assert tuple(seen) == whole.events
    for claim in (first, second):
        seqs = [event.seq for event in seen if event.job_id == claim.job_id]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_filters_choose_and_the_place_goes_on_past_what_they_leave_out(world: World) -> None:
    first, second = await run_two(world)
    await jobs.append_events(world.db, first.lease, [(EventKind.LOG, {"message": "hello"})])
    whole = await read_until(world, START, 5)

    async def chosen(filters: EventFilters) -> list[tuple[UUID, int]]:
        page = await tenant_events.read(world.db, world.tenant_id, START, filters)
        assert filters.job_ids or page.cursor == whole.cursor
        return sorted((event.job_id, event.seq) for event in page.events)

    ones = [(first.job_id, 1), (second.job_id, 1)]
    assert await chosen(EventFilters(kinds=(EventKind.LOG,))) == [(first.job_id, 3)]
    assert await chosen(EventFilters(states=(JobState.QUEUED,))) == ones
    assert await chosen(EventFilters(app="acme/other")) == []
    assert await chosen(EventFilters(app="acme/echo", states=(JobState.QUEUED,))) == ones
    assert await chosen(EventFilters(root_id=second.job_id)) == [(second.job_id, 1), (second.job_id, 2)]
    assert await chosen(EventFilters(parent_id=second.job_id)) == []
    assert await chosen(EventFilters(job_ids=(second.job_id,))) == [(second.job_id, 1), (second.job_id, 2)]


async def test_the_rows_of_a_family_are_the_same_as_what_a_filter_of_all_rows_would_leave(world: World) -> None:
    light = await apps.publish(world.db, manifest("acme/light", endpoint("/", uses_gpus=False), num_gpus=0))
    node = await world.node(versions=[light])
    tops, middles, others = [], [], await world.submit()
    for top in range(2):
        await world.submit(version=light)
        claim = await node.take()
        tops.append(claim.job_id)
        for key in "ab":
            new = NewChild(version=light, endpoint="/", input={}, key=key)
            middles.append((await children.submit(world.db, claim.lease, new)).job_id)
        below = await node.take()
        low = NewChild(version=world.default, endpoint="/", input={"top": top})
        middles.append((await children.submit(world.db, below.lease, low)).job_id)
        await node.take()
    whole = await read_until(world, START, await world.value("SELECT count(*)::int FROM job_events"))
    rows = [event for event in whole.events if event.job_id != others.job_id]
    parents = {event.job_id: event.parent_id for event in rows}

    def under(root: UUID, job: UUID | None) -> bool:
        return job == root or (job is not None and under(root, parents[job]))

    async def all_of(filters: EventFilters, scan: int) -> list[TenantEvent]:
        seen: list[TenantEvent] = []
        cursor, has_more = START, True
        while has_more:
            page = await tenant_events.read(world.db, world.tenant_id, cursor, filters, scan=scan)
            seen += page.events
            cursor, has_more = page.cursor, page.has_more
        assert cursor == whole.cursor
        return seen

    for job_id in tops + middles:
        started = [event for event in rows if event.parent_id == job_id]
        came_of = [event for event in rows if under(job_id, event.job_id)]
        for scan in (1, 3, 500):
            assert await all_of(EventFilters(parent_id=job_id), scan) == started
            if job_id in tops:
                assert await all_of(EventFilters(root_id=job_id), scan) == came_of
        assert await all_of(EventFilters(parent_id=job_id, root_id=tops[0]), 2) == [
            event for event in started if under(tops[0], event.job_id)
        ]
    assert parents.keys() == {*tops, *middles}
    strangers = await tenant_events.read(world.db, await world.tenant("other"), START, EventFilters(root_id=tops[0]))
    assert strangers.events == ()


async def test_the_place_of_who_follows_one_job_goes_on_with_those_of_others_and_passes_no_row_that_is_held(
    world: World, database_url: str
) -> None:
    first, second = await run_two(world)
    of_first = EventFilters(job_ids=(first.job_id,))
    whole = await read_until(world, START, 4)
    page = await tenant_events.read(world.db, world.tenant_id, START, of_first)
    assert page.cursor == whole.cursor

    async with appending(database_url, first, "held"):
        async with appending(database_url, second, "of another"):
            pass
        meanwhile = await tenant_events.read(world.db, world.tenant_id, page.cursor, of_first)
    await world.rows("UPDATE tenants SET events_pruned = :mark", mark=whole.cursor.mark - 1)
    after = await read_until(world, meanwhile.cursor, 1, of_first)

    assert (meanwhile.events, meanwhile.is_held) == ((), True)
    assert (said(after.events), after.has_gap) == (["held"], False)


async def test_from_now_on_begins_after_what_is_committed_and_before_what_is_held(
    world: World, database_url: str
) -> None:
    first, _ = await run_two(world)
    whole = await read_until(world, START, 4)
    async with appending(database_url, first, "held"):
        place = await tenant_events.here(world.db, world.tenant_id)
    after = await read_until(world, place, 1)

    # No further than the newest row: numbers that no row has may be given again when the server has crashed.
    assert place == whole.cursor
    assert said(after.events) == ["held"]


async def test_who_begins_now_after_all_was_deleted_is_told_of_no_gap(world: World) -> None:
    job = await world.submit()
    [event] = (await read_until(world, START, 1)).events
    await world.rows("UPDATE tenants SET events_pruned = :mark", mark=event.cursor.mark)
    await world.rows("DELETE FROM jobs WHERE id = :id", id=job.job_id)

    now = await tenant_events.here(world.db, world.tenant_id)
    page = await tenant_events.read(world.db, world.tenant_id, now, ALL)
    before = await tenant_events.read(world.db, world.tenant_id, event.cursor._replace(mark=event.cursor.mark - 1), ALL)

    assert (page.has_gap, page.cursor) == (False, now)
    assert (before.has_gap, before.cursor) == (True, now)


async def test_a_tenant_sees_its_own_rows_alone_and_every_row_has_its_tenant(world: World) -> None:
    node = await world.node()
    stranger = await world.tenant("stranger")
    await world.submit()
    await world.submit(tenant_id=stranger)
    await world.submit(run_at=world.began.replace(year=world.began.year + 1))
    cancelled = await world.submit()
    await jobs.request_cancel(world.db, cancelled.job_id, None)
    for _ in range(2):
        await node.finish(await node.take())
    await world.rows("UPDATE jobs SET available_at = stoker_now() WHERE state = 'scheduled'")
    await jobs.promote_due(world.db)

    own, others = await read_until(world, START, 7), await tenant_events.read(world.db, stranger, START, ALL)

    assert len(own.events) + len(others.events) == await world.value("SELECT count(*) FROM job_events")
    assert {event.job_id for event in own.events}.isdisjoint(event.job_id for event in others.events)
    assert all("result" not in event.data for event in own.events)


async def test_a_restored_database_whose_numbers_start_anew_puts_new_rows_after_the_old(world: World) -> None:
    first, second = await run_two(world)
    old = await read_until(world, START, 4)
    # As a dump of a server that had seen a million transactions more, and whose last hour was lost with it.
    await world.rows("UPDATE job_events SET mark = mark + 1000000")
    await world.rows("UPDATE job_heads SET mark = mark + 1000000")
    await world.rows("UPDATE event_clock SET server = 'another'")
    lost = old.cursor._replace(mark=old.cursor.mark + 2_000_000)

    assert await event_clock.keep(world.db)
    assert not await event_clock.keep(world.db)
    await jobs.append_events(world.db, first.lease, [(EventKind.LOG, {"message": "after"})])
    await jobs.append_events(world.db, second.lease, [(EventKind.LOG, {"message": "after"})])

    again = await read_until(world, START, 6)
    assert said(again.events)[4:] == ["after", "after"]
    resumed = await read_until(world, lost, 2)
    assert said(resumed.events) == ["after", "after"]
    assert resumed.has_gap
    assert not (await read_until(world, again.cursor, 0)).has_gap


async def test_who_saw_a_restored_database_that_was_restored_again_is_told_and_sees_all_that_is_new(
    world: World,
) -> None:
    claim, _ = await run_two(world)
    backup = [await world.value(f"SELECT {column} FROM event_clock") for column in ("era", "base")]
    await world.rows("UPDATE event_clock SET server = 'another'")
    assert await event_clock.keep(world.db)
    await jobs.append_events(world.db, claim.lease, [(EventKind.LOG, {"message": "lost"})])
    seen = (await read_until(world, START, 5)).cursor
    lost = seen._replace(mark=seen.mark + 1_000_000)

    await world.rows("DELETE FROM job_events WHERE data ->> 'message' = 'lost'")
    await world.rows(
        "UPDATE event_clock SET era = :era, base = :base, server = 'another'", era=backup[0], base=backup[1]
    )
    await world.set_clock(3600)
    assert await event_clock.keep(world.db)
    await world.rows("UPDATE job_heads SET last_seq = 2, mark = 0")
    other = await world.submit()

    page = await read_until(world, lost, 1)
    assert page.has_gap
    assert [event.job_id for event in page.events] == [other.job_id]


async def test_a_place_beyond_what_is_numbered_yet_is_of_a_lost_life_and_what_comes_is_seen(world: World) -> None:
    await run_two(world)
    # As after a snapshot of the volume was put back: the same server, the same era, fewer transactions.
    seen = (await read_until(world, START, 4)).cursor
    ahead = seen._replace(mark=seen.mark + 1_000_000)

    page = await tenant_events.read(world.db, world.tenant_id, ahead, ALL)
    await world.submit()
    after = await read_until(world, page.cursor, 1)

    assert page.has_gap
    assert (said(after.events), after.has_gap) == (["queued"], False)


@pytest.mark.parametrize("written", ["", "0.0", "1.2.3.4", "1.-2.00000000000000000000000000000000.1", "x" * 99])
def test_what_is_no_place_is_refused(written: str) -> None:
    with pytest.raises(InvalidRequest):
        Cursor.parse(written)
