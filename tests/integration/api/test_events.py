"""A job's event stream: replay, follow, reconnect, end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx2
import pytest

from stoker import jobs
from stoker.events import EventId, EventKind
from stoker.local.engines import Engines
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.sse import Frame, events, frames, named, rest

pytestmark = pytest.mark.anyio


async def submit(http: httpx2.AsyncClient, app: str) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def states(seen: list[Frame]) -> list[str]:
    return [frame.data["state"] for frame in seen if frame.event == "state"]


def rows(seen: list[Frame]) -> list[int]:
    return [EventId.parse(frame.id or "").seq for frame in seen if (frame.id or "").endswith(".0")]


async def test_a_finished_job_is_replayed_and_the_stream_ends(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()
    await node.log(claim, "mixing paint")
    await node.succeed(claim, {"answer": 42})

    async with events(http, f"/v1/jobs/{job_id}/events") as stream:
        seen = [frame async for frame in stream]

    assert seen[0].retry is not None
    seen = seen[1:]
    assert [frame.event for frame in seen] == ["state", "state", "log", "state"]
    assert states(seen) == ["queued", "running", "succeeded"]
    assert rows(seen) == [1, 2, 3, 4]
    assert seen[-1].data["result"] == {"answer": 42}


async def test_a_stream_follows_the_job_to_its_end(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    job_id = await submit(http, app)

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        queued = await anext(stream)
        claim = await node.claim()
        running = await anext(stream)
        step = await node.progress(claim, claim.seq, 1)
        progress = await anext(stream)
        await node.progress(claim, claim.seq, 1, EventKind.PREVIEW, image={"url": "data:image/png;base64,AA=="})
        preview = await anext(stream)
        await node.succeed(claim, {"answer": 42})
        end = await rest(stream)

    assert [queued.data["state"], running.data["state"]] == ["queued", "running"]
    assert (progress.event, progress.id, progress.data["step"]) == ("progress", str(step), 1)
    assert (preview.event, preview.data["image"]["url"]) == ("preview", "data:image/png;base64,AA==")
    assert states(end) == ["succeeded"]


async def test_a_client_that_was_cut_sees_every_row_once_in_order_and_the_result(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()
    path = f"/v1/jobs/{job_id}/events"
    seen: list[Frame] = []

    last = claim.seq
    for part in range(4):
        headers = {"last-event-id": seen[-1].id or ""} if seen else {}
        async with events(http, path, headers=headers) as raw:
            stream = named(raw)
            wanted = f"part {part}"
            last = await node.log(claim, wanted)
            await node.progress(claim, last, part)
            while not (seen and seen[-1].event == "progress" and seen[-1].data["step"] == part):
                seen.append(await anext(stream))
        # Nobody listens now.
        last = await node.log(claim, f"unheard {part}")
        await node.progress(claim, last, 100 + part)
    await node.succeed(claim, {"answer": 42})
    async with events(http, path, headers={"last-event-id": seen[-1].id or ""}) as raw:
        seen += await rest(named(raw))

    ids = [EventId.parse(frame.id or "") for frame in seen]
    assert ids == sorted(set(ids))
    assert rows(seen) == list(range(1, 12))
    logs = [frame.data["message"] for frame in seen if frame.event == "log"]
    assert logs == [text for part in range(4) for text in (f"part {part}", f"unheard {part}")]
    assert states(seen) == ["queued", "running", "succeeded"]
    assert seen[-1].data["result"] == {"answer": 42}


async def test_the_newest_progress_comes_after_the_replay(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()
    for step in (1, 2, 3):
        await node.progress(claim, claim.seq, step)
    await node.progress(claim, claim.seq, 3, EventKind.PREVIEW, rank=0, image={"url": "data:,old"})
    await node.progress(claim, claim.seq, 3, EventKind.PREVIEW, rank=0, image={"url": "data:,new"})
    await node.progress(claim, claim.seq, 3, EventKind.PREVIEW, rank=1, image={"url": "data:,other"})

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        seen = [await anext(stream) for _ in range(5)]

    assert [frame.event for frame in seen] == ["state", "state", "progress", "preview", "preview"]
    assert seen[2].data["step"] == 3
    assert [frame.data["image"]["url"] for frame in seen[3:]] == ["data:,new", "data:,other"]


async def test_a_client_that_comes_back_gets_the_progress_it_missed_between_the_rows(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()
    path = f"/v1/jobs/{job_id}/events"
    seen_last = await node.progress(claim, claim.seq, 1)

    missed = [await node.progress(claim, claim.seq, 2)]
    for step in (3, 4):
        seq = await node.log(claim, f"before {step}")
        missed += [EventId(seq, 1), await node.progress(claim, seq, step), await node.progress(claim, seq, step)]
    async with events(http, path, headers={"last-event-id": str(seen_last)}) as raw:
        stream = named(raw)
        seen = [await anext(stream) for _ in missed]
        await node.succeed(claim, {"answer": 42})
        end = await rest(stream)
    async with events(http, path, headers={"last-event-id": str(seen_last)}) as raw:
        again = await rest(raw)

    assert [frame.id for frame in seen] == [str(event_id) for event_id in missed]
    assert states(end) == ["succeeded"]
    # Of a job that has ended the newest progress alone is kept, beside all its rows.
    assert again == [frame for frame in seen if frame.event == "log"] + [seen[-1]] + end


async def test_progress_of_an_attempt_that_lost_its_job_is_not_shown(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    first = await node.claim()
    await node.progress(first, first.seq, 9)
    await jobs.release(node.db, {first.lease: None}, "drain")
    second = await node.claim()

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        stream = named(raw)
        seen = [await anext(stream) for _ in range(4)]
        await node.progress(first, first.seq, 10)
        await node.progress(second, second.seq, 1)
        seen.append(await anext(stream))

    assert [frame.event for frame in seen] == ["state", "state", "state", "state", "progress"]
    assert seen[-1].data["step"] == 1
    assert seen[-1].id == f"{second.seq}.2.3"


async def test_after_can_name_the_last_event_and_the_header_wins(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    await node.succeed(await node.claim(), {})
    path = f"/v1/jobs/{job_id}/events"

    async with events(http, path, params={"after": "1.0.0"}) as raw:
        by_query = await rest(raw)
    async with events(http, path, params={"after": "1"}, headers={"last-event-id": "2.1.0"}) as raw:
        by_header = await rest(raw)

    assert rows(by_query) == [2, 3]
    assert rows(by_header) == [3]


async def test_who_has_seen_the_final_event_is_told_that_there_is_no_more(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)
    await node.succeed(await node.claim(), {})

    answer = await http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": "3.1.0"})

    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("given", ["x", "1.2.3.4", "-1", "99999", "1.1e3"])
async def test_an_id_that_no_event_has_is_refused(
    http: httpx2.AsyncClient, node: ActingNode, app: str, given: str
) -> None:
    job_id = await submit(http, app)

    answer = await http.get(f"/v1/jobs/{job_id}/events", params={"after": given})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_links_of_outputs_are_absolute_in_events_and_results(
    http: httpx2.AsyncClient, node: ActingNode, app: str, storage: Storage, api: RunningApi
) -> None:
    job_id = await submit(http, app)
    claim = await node.claim()
    output = await node.store(storage, claim, "cat.png", "/images/0", b"png bytes", "image/png")
    link = f"/outputs/{output.token}/cat.png"
    result = {"images": [{"url": link, "file_name": "cat.png"}], "note": "/outputs/mine stays"}
    await node.succeed(claim, result, [output])

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        seen = await rest(raw)
    job = (await http.get(f"/v1/jobs/{job_id}")).json()

    for shown in (seen[-1].data["result"], job["result"]):
        assert shown["images"][0]["url"] == f"{api.url}{link}"
        assert shown["note"] == "/outputs/mine stays"
    assert job["outputs"][0]["url"] == f"{api.url}{link}"
    assert job["outputs"][0]["sha256"] == output.sha256


async def test_a_quiet_stream_is_pinged(
    engines: Engines, database_url: str, node: ActingNode, app: str, http: httpx2.AsyncClient
) -> None:
    job_id = await submit(http, app)
    async with (
        running_api(api_settings(engines, database_url, ping_s=0.2)) as other,
        httpx2.AsyncClient(base_url=other.url, headers=http.headers) as client,
        events(client, f"/v1/jobs/{job_id}/events") as stream,
    ):
        comments = [frame.comment async for frame in _until_comment(stream)]

    assert comments[-1] == "ping"


async def _until_comment(stream: AsyncIterator[Frame]) -> AsyncIterator[Frame]:
    async for frame in stream:
        yield frame
        if frame.comment is not None:
            return


async def test_a_client_that_leaves_is_no_longer_followed(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    job_id = await submit(http, app)

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        await anext(named(raw))
        during = await open_streams(http)
    while after := await open_streams(http):
        pass  # each turn is a request, so the server gets to see the closed connection

    assert (during, after) == (1, 0)


async def open_streams(http: httpx2.AsyncClient) -> int:
    metrics = (await http.get("/metrics")).text
    return int(float(re.search(r"^stoker_sse_clients (\S+)$", metrics, re.MULTILINE)[1]))


async def test_streams_are_not_cached_or_buffered_on_the_way(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job_id = await submit(http, app)

    async with http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        await anext(frames(answer))

    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
