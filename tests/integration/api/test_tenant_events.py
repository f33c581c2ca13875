"""The stream of many jobs: follow, filter, resume, pages, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import httpx2
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import jobs, retention
from stoker.bus import Bus
from stoker.client import Client, JobsEvent
from stoker.events import EventKind
from stoker.local.engines import Engines
from stoker.tenant_events import SCAN, Cursor
from tests.support.acting_node import ActingNode
from tests.support.api_server import api_settings, running_api
from tests.support.sse import Frame, events, named
from tests.support.tenants import Tenant

pytestmark = pytest.mark.anyio

PATH = "/v1/events"


async def submit(http: httpx2.AsyncClient, app: str) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}})
    job_id: str = answer.raise_for_status().json()["id"]
    return job_id


async def some(stream: AsyncIterator[Frame], count: int) -> list[Frame]:
    found: list[Frame] = []
    while len(found) < count:
        frame = await anext(stream)
        if frame.event not in (None, "place"):
            found.append(frame)
    return found


def rows(seen: Sequence[Frame]) -> list[tuple[str, int]]:
    return [(frame.data["job_id"], frame.data["seq"]) for frame in seen]


async def test_who_follows_a_tenant_sees_each_row_of_all_its_jobs_once_over_two_connections(
    http: httpx2.AsyncClient, stranger: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    async with events(http, PATH) as raw:
        assert (await anext(named(raw))).event == "place"
        job_ids = [await submit(http, app), await submit(http, app)]
        await submit(stranger, app)
        first = await some(raw, 2)
        claim = await node.claim()
        await node.log(claim, "heard")
        first += await some(raw, 2)
    await node.log(claim, "unheard")
    await node.succeed(claim, {"answer": 42})
    async with events(http, PATH, headers={"last-event-id": first[-1].id or ""}) as raw:
        second = await some(raw, 2)

    seen = rows(first + second)
    assert sorted(seen) == sorted([(job_ids[0], seq) for seq in range(1, 6)] + [(job_ids[1], 1)])
    assert second[-1].data["data"]["state"] == "succeeded"
    assert "result" not in second[-1].data["data"]


async def test_a_client_that_was_cut_before_its_first_event_misses_none(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    async with events(http, PATH) as raw:
        place = await anext(named(raw))
    job_id = await submit(http, app)

    async with events(http, PATH, headers={"last-event-id": place.id or ""}) as raw:
        seen = await some(raw, 1)

    assert rows(seen) == [(job_id, 1)]


async def test_a_row_whose_wake_up_was_lost_is_found_by_the_look(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    node.bus = Bus("redis://127.0.0.1:1/0")

    async with events(http, PATH, params={"job_id": job_id}) as raw:
        await some(raw, 1)
        await node.succeed(await node.claim(), {})
        seen = await some(raw, 2)

    assert rows(seen) == [(job_id, 2), (job_id, 3)]
    await node.bus.close()


async def test_pages_are_json_and_filters_choose(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    job_id = await submit(http, app)
    await node.succeed(await node.claim(), {})
    seen: list[dict[str, object]] = []
    cursor, page = "0", {"has_more": True}
    while page["has_more"] or len(seen) < 3:
        answer = await http.get(PATH, params={"after": cursor, "limit": 1}, headers={"accept": "application/json"})
        page = answer.raise_for_status().json()
        seen += page["events"]
        cursor = page["next"]
    ends = await http.get(
        PATH, params={"after": "0", "state": "succeeded", "app": app}, headers={"accept": "application/json"}
    )
    refused = await http.get(PATH, params={"kind": "progress"})

    assert [(event["job_id"], event["seq"]) for event in seen] == [(job_id, 1), (job_id, 2), (job_id, 3)]
    assert [event["seq"] for event in ends.json()["events"]] == [3]
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")


async def test_who_comes_back_after_rows_were_deleted_is_told_of_the_gap(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    old = await submit(http, app)
    async with events(http, PATH, params={"after": "0"}) as raw:
        [first] = await some(raw, 1)
    await node.succeed(await node.claim(), {})
    kept = await submit(http, app)
    async with db.begin() as tx:
        await retention.delete_jobs(tx, [UUID(old)])

    async with events(http, PATH, headers={"last-event-id": first.id or ""}) as raw:
        gap, after = await some(raw, 2)
    async with events(http, PATH, headers={"last-event-id": after.id or ""}) as raw:
        await submit(http, app)
        [no_gap] = await some(raw, 1)

    assert (gap.event, rows([after])) == ("gap", [(kept, 1)])
    assert no_gap.event == "state"


async def test_a_client_that_is_cut_while_filters_leave_out_a_long_history_goes_on_where_it_had_come(
    engines: Engines, database_url: str, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    await submit(caller.http, app)
    claim = await node.claim()
    for _ in range(3):
        await jobs.append_events(db, claim.lease, [(EventKind.LOG, {"message": "x"})] * SCAN)
    sparse = {"kind": "output", "after": "0"}
    places: list[Cursor] = []
    async with (
        running_api(api_settings(engines, database_url, ping_s=1e-6)) as other,
        httpx2.AsyncClient(base_url=other.url, headers=caller.http.headers) as http,
    ):
        for _ in range(2):
            last = {"last-event-id": str(places[-1])} if places else {}
            async with events(http, PATH, params=sparse, headers=last) as raw:
                seen = named(raw)
                frames = [await anext(seen), await anext(seen)]
            assert [frame.event for frame in frames] == ["place", "place"]
            places += [Cursor.parse(frame.id or "") for frame in frames]

    assert [place.seq for place in places[:3]] == [SCAN, 2 * SCAN, 3 * SCAN]


async def test_who_follows_is_told_of_each_gap_once(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as held, events(http, PATH) as raw:
        await anext(named(raw))
        await held.execute("SELECT pg_current_xact_id()")  # while it is open, what comes now is not sent
        gaps: list[Frame] = []
        for _ in range(2):
            gone = await submit(http, app)
            await node.succeed(await node.claim(), {})
            async with db.begin() as tx:
                await retention.delete_jobs(tx, [UUID(gone)])
            kept = await submit(http, app)
            await node.claim()
            gaps += await some(raw, 1)
        await held.rollback()
        after = await some(raw, 4)

    assert [frame.event for frame in gaps] == ["gap", "gap"]
    assert [frame.event for frame in after] == ["state"] * 4
    assert after[-1].data["job_id"] == kept


async def test_the_client_goes_on_where_its_api_ended(
    engines: Engines, database_url: str, caller: Tenant, node: ActingNode, app: str
) -> None:
    job_id = await submit(caller.http, app)
    settings = api_settings(engines, database_url)
    async with running_api(settings) as first:
        url = first.url
        client = Client(url, caller.key)
        stream = client.all_events(job_ids=[job_id])
        seen: list[JobsEvent] = [await asyncio.to_thread(next, stream)]
    await node.log(await node.claim(), "while it was away")
    async with running_api(settings, port=int(url.rpartition(":")[2])):
        seen += [await asyncio.to_thread(next, stream) for _ in range(2)]
    client.close()

    assert [(event.seq, event.kind) for event in seen] == [(1, "state"), (2, "state"), (3, "log")]
