"""The queue of fal's wire, request by request: codes, bodies and headers that its clients need."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import job_status, jobs
from stoker.errors import AppError, RunTimeout, StartTimeout, StokerError, WorkerCrashed
from stoker.job_status import JobStatus
from stoker.jobs import ErrorReport, Failed, Usage
from tests.support.acting_node import ActingNode
from tests.support.sse import frames
from tests.support.tenants import Tenant, count_jobs

pytestmark = pytest.mark.anyio

CAT = {"prompt": "a cat"}


async def submit(http: httpx2.AsyncClient, app: str, **request: object) -> dict:
    answer = await http.post(f"/queue/{app}", json=CAT, **request)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def fail(node: ActingNode, error: StokerError) -> None:
    """Claim the job and fail it, as often as it is tried."""
    state = None
    while state is None or not state.is_final:
        claim = await node.claim()
        done = await jobs.finish(node.db, claim.lease, Failed(ErrorReport.of(error)), Usage())
        state = done.state
        assert state is not None
        await node.bus.wake(claim.job_id, done.seq, claim.tenant_id, is_final=state.is_final)


async def test_a_submitted_request_names_the_places_where_it_is_found(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    answer = await http.post(f"/queue/{app}", json=CAT)

    body = answer.json()
    own = f"{http.base_url}/queue/{app}/requests/{body['request_id']}"
    assert (answer.status_code, answer.headers["x-fal-request-id"]) == (200, body["request_id"])
    assert body == {
        "status": "IN_QUEUE",
        "request_id": body["request_id"],
        "response_url": own,
        "status_url": f"{own}/status",
        "cancel_url": f"{own}/cancel",
        "queue_position": 0,
        "gateway_request_id": body["request_id"],
    }
    shown = (await http.get(f"/v1/jobs/{body['request_id']}")).json()
    assert (shown["app"], shown["endpoint"], shown["input"], shown["priority"]) == (app, "/", CAT, 5)


async def test_a_subpath_is_the_endpoint_and_its_status_is_asked_for_without_it(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    answer = await http.post(f"/queue/{app}/train", json=CAT)

    body = answer.json()
    assert body["status_url"].endswith(f"/queue/{app}/requests/{body['request_id']}/status")
    assert (await http.get(f"/v1/jobs/{body['request_id']}")).json()["endpoint"] == "/train"


async def test_a_request_goes_from_the_queue_to_its_result(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    before = await submit(http, app)
    request = await submit(http, app)
    waiting = await http.get(request["status_url"])
    early = await http.get(request["response_url"])
    await node.claim()
    claim = await node.claim()
    await node.log(claim, "step 1")
    running = await http.get(request["status_url"], params={"logs": "1"})
    silent = await http.get(request["status_url"], params={"logs": "0"})
    await node.succeed(claim, {"answer": 42})
    completed = await http.get(request["status_url"], params={"logs": "true"})
    result = await http.get(request["response_url"])

    assert before["queue_position"] == 0
    assert (waiting.status_code, waiting.json()["status"], waiting.json()["queue_position"]) == (202, "IN_QUEUE", 1)
    assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})
    assert (running.status_code, running.json()["status"]) == (202, "IN_PROGRESS")
    [line] = running.json()["logs"]
    assert (line["message"], line["level"], line["source"]) == ("step 1", "INFO", "USER")
    assert silent.json()["logs"] == []
    done = completed.json()
    assert (completed.status_code, done["status"], done["error"], done["error_type"]) == (200, "COMPLETED", None, None)
    assert (done["logs"], "inference_time" in done["metrics"]) == ([line], True)
    assert (result.status_code, result.json()) == (200, {"answer": 42})
    assert result.headers["x-fal-request-id"] == request["request_id"]


@pytest.mark.parametrize(
    ("error", "status", "error_type", "timeout_type"),
    [
        (AppError("no such style"), 500, "runner_server_error", None),
        (WorkerCrashed("rank 1 died"), 503, "runner_disconnected", None),
        (StartTimeout("nobody came"), 504, "request_timeout", "user"),
        (RunTimeout("too long"), 504, "request_timeout", "user"),
    ],
)
async def test_a_failed_request_is_completed_and_its_result_has_the_errors_code(
    http: httpx2.AsyncClient,
    node: ActingNode,
    app: str,
    error: StokerError,
    status: int,
    error_type: str,
    timeout_type: str | None,
) -> None:
    request = await submit(http, app, headers={"x-fal-no-retry": "1"})
    await fail(node, error)

    completed = (await http.get(request["status_url"])).json()
    result = await http.get(request["response_url"])

    assert (completed["status"], completed["error"], completed["error_type"]) == ("COMPLETED", str(error), error_type)
    assert (result.status_code, result.json()) == (status, {"detail": str(error), "error_type": error_type})
    assert result.headers["x-fal-error-type"] == error_type
    assert result.headers.get("x-fal-request-timeout-type") == timeout_type
    assert result.headers["x-fal-request-id"] == request["request_id"]


async def test_a_wrong_input_is_refused_with_its_places_and_nothing_is_stored(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    answer = await caller.http.post(f"/queue/{app}", json={"prompt": "", "steps": "many"})

    assert answer.status_code == 422
    places = {tuple(entry["loc"]): entry["type"] for entry in answer.json()["detail"]}
    assert places == {("body", "prompt"): "string_too_short", ("body", "steps"): "integer_type"}
    assert answer.headers["content-type"] == "application/json"
    assert await count_jobs(db, caller.id) == 0


async def test_cancelling_twice_says_that_it_is_done(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    request = await submit(http, app)

    first, second = [await http.put(request["cancel_url"]) for _ in range(2)]
    result = await http.get(request["response_url"])
    unknown = await http.put(f"/queue/{app}/requests/{uuid4()}/cancel")

    assert (first.status_code, first.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert (second.status_code, second.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert (result.status_code, result.json()["error_type"]) == (499, "client_cancelled")
    assert (unknown.status_code, unknown.json()) == (404, {"status": "NOT_FOUND"})


async def test_a_running_request_is_asked_to_stop(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    request = await submit(http, app)
    claim = await node.claim()

    asked = [(await http.put(request["cancel_url"])).status_code for _ in range(2)]
    still = (await http.get(request["status_url"])).json()
    await node.stop(claim)
    stopped = (await http.get(request["status_url"])).json()

    assert (asked, still["status"]) == ([202, 202], "IN_PROGRESS")
    assert (stopped["status"], stopped["error_type"]) == ("COMPLETED", "client_cancelled")


async def test_headers_set_priority_start_timeout_retries_and_what_is_kept(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    wishes = {
        "x-fal-queue-priority": "low",
        "x-fal-request-timeout": "30.0",
        "x-fal-no-retry": "true",
        "x-fal-store-io": "0",
        "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds": 3600}',
    }
    request = await submit(http, app, headers=wishes)
    newer = {"x-fal-request-start-timeout": "20", "x-fal-object-lifecycle": '{"expiration_duration_seconds": null}'}
    plain = await submit(http, app, headers={**newer, "x-fal-request-timeout": "30", "x-fal-store-io": "1"})

    query = text(
        "SELECT priority, start_timeout_s, max_attempts, no_retry, store_io, keep_outputs_s FROM jobs WHERE id = :id"
    )
    async with db.connect() as connection:
        low, normal = [
            tuple((await connection.execute(query, {"id": each["request_id"]})).one()) for each in (request, plain)
        ]
    assert low == (9, 30.0, 1, True, False, 3600.0)
    assert normal == (5, 20.0, 3, False, True, None)


async def test_a_crash_of_a_request_that_is_not_to_be_retried_is_its_end(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    once = await submit(http, app, headers={"x-fal-no-retry": "1"})
    claim = await node.claim()

    done = await jobs.finish(node.db, claim.lease, Failed(ErrorReport.of(WorkerCrashed("rank 1 died"))), Usage())

    answer = await http.get(once["response_url"])
    assert done.state is not None
    assert done.state.is_final
    assert (answer.status_code, answer.json()["error_type"]) == (503, "runner_disconnected")


@pytest.mark.parametrize(
    "header",
    [
        ("x-fal-queue-priority", "urgent"),
        ("x-fal-request-timeout", "nan"),
        ("x-fal-store-io", "no"),
        ("x-fal-object-lifecycle-preference", "1h"),
        ("x-fal-object-lifecycle-preference", "[]"),
        ("x-fal-object-lifecycle-preference", '{"expiration_duration_seconds": 0}'),
        ("x-fal-object-lifecycle-preference", '{"expiration_duration_seconds": 1e300}'),
        ("x-fal-object-lifecycle", '{"expiration_duration_seconds": true}'),
    ],
)
async def test_a_header_that_cannot_be_read_is_refused(
    http: httpx2.AsyncClient, node: ActingNode, app: str, header: tuple[str, str]
) -> None:
    answer = await http.post(f"/queue/{app}", json=CAT, headers=dict([header]))

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", header[0]]


async def test_headers_without_a_meaning_here_are_named_in_the_answer(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    lifecycle = '{"expiration_duration_seconds": 60, "initial_acl": {"default": "hide"}}'
    wishes = {"x-fal-object-lifecycle-preference": lifecycle, "x-fal-runner-hint": "lora-7"}

    answer = await http.post(f"/queue/{app}", json=CAT, headers=wishes)

    unheeded = "x-fal-runner-hint, x-fal-object-lifecycle-preference.initial_acl"
    assert answer.headers["x-stoker-ignored"] == unheeded


async def test_a_queue_longer_than_the_caller_wants_answers_429(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    answers = [await caller.http.post(f"/queue/{app}", json=CAT, params={"fal_max_queue_length": 2}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error_type"] == "queue_full"
    assert await count_jobs(db, caller.id) == 2


async def test_a_webhook_is_taken_from_the_query(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    request = await submit(http, app, params={"fal_webhook": "https://127.0.0.1/hook"})
    refusals = [
        await http.post(f"/queue/{app}", json=CAT, params={"fal_webhook": url})
        for url in ("ftp://example.com/hook", "http://example.com/hook")
    ]

    assert (await http.get(f"/v1/jobs/{request['request_id']}")).json()["webhook_url"] == "https://127.0.0.1/hook"
    assert {refused.status_code for refused in refusals} == {422}
    assert [refused.json()["detail"][0]["loc"] for refused in refusals] == [["query", "fal_webhook"]] * 2


async def test_the_same_idempotency_key_is_the_same_request(
    caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    ids = {(await submit(caller.http, app, headers={"idempotency-key": "once"}))["request_id"] for _ in range(2)}

    assert len(ids) == 1
    assert await count_jobs(db, caller.id) == 1


async def test_no_key_an_unknown_app_and_anothers_request_are_refused_in_fals_form(
    http: httpx2.AsyncClient, stranger: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    request = await submit(http, app)
    path = request["status_url"].removesuffix("/status")

    async with httpx2.AsyncClient(base_url=http.base_url) as nobody:
        refused = {
            401: [await nobody.post(f"/queue/{app}", json=CAT), await nobody.get(path)],
            404: [
                await http.post("/queue/acme/nothing", json=CAT),
                await http.post(f"/queue/{app}/nowhere", json=CAT),
                await http.get(f"/queue/acme/other/requests/{request['request_id']}/status"),
                await http.get(f"/queue/{app}/requests/no-id/status"),
                await stranger.get(path),
                await stranger.get(f"{path}/status"),
                await stranger.get(f"{path}/status/stream"),
                await stranger.put(f"{path}/cancel"),
            ],
        }

    for status, answers in refused.items():
        assert [answer.status_code for answer in answers] == [status] * len(answers)
        for answer in answers:
            assert answer.headers["content-type"] == "application/json"
            assert {"detail", "status"} & answer.json().keys()
            assert "x-fal-request-id" in answer.headers
    assert (await http.get(request["status_url"])).json()["status"] == "IN_QUEUE"


async def test_the_status_stream_sends_each_change_with_the_new_lines_alone(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    request = await submit(http, app)

    seen = []
    async with http.stream("GET", f"{request['status_url']}/stream", params={"logs": "1"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-fal-request-id"] == request["request_id"]
        stream = frames(answer)
        seen.append((await anext(stream)).data)
        claim = await node.claim()
        seen.append((await anext(stream)).data)
        await node.log(claim, "one")
        seen.append((await anext(stream)).data)
        await node.log(claim, "two")
        seen.append((await anext(stream)).data)
        await node.succeed(claim, {})
        seen.append((await anext(stream)).data)
        rest = [frame async for frame in stream]

    assert [status["status"] for status in seen] == ["IN_QUEUE", *["IN_PROGRESS"] * 3, "COMPLETED"]
    assert [[line["message"] for line in status["logs"]] for status in seen[1:]] == [[], ["one"], ["two"], []]
    assert rest == []


async def test_a_request_that_ends_while_its_status_is_read_loses_no_line(
    http: httpx2.AsyncClient, node: ActingNode, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await submit(http, app)
    claim = await node.claim()
    find = job_status.find

    async def find_late(*args: object) -> JobStatus:
        if not ended.is_set():
            ended.set()
            await node.log(claim, "last words")
            await node.succeed(claim, {})
        return await find(*args)  # type: ignore[arg-type]

    ended = asyncio.Event()
    async with http.stream("GET", f"{request['status_url']}/stream", params={"logs": "1"}) as answer:
        monkeypatch.setattr("stoker.job_status.find", find_late)  # the route has read it once
        seen = [frame.data async for frame in frames(answer)]

    assert [line["message"] for line in seen[-1]["logs"]] == ["last words"]


async def test_the_status_stream_of_a_completed_request_tells_all_of_its_log(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    request = await submit(http, app)
    claim = await node.claim()
    await node.log(claim, "one")
    await node.succeed(claim, {})

    async with http.stream("GET", f"{request['status_url']}/stream", params={"logs": "1"}) as answer:
        [only] = [frame.data async for frame in frames(answer)]

    assert (only["status"], [line["message"] for line in only["logs"]]) == ("COMPLETED", ["one"])


async def test_an_empty_body_is_an_empty_input(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    answer = await http.post(f"/queue/{app}", headers={"content-type": "application/json"})

    assert answer.status_code == 422
    assert json.loads(answer.content)["detail"][0]["loc"] == ["body", "prompt"]
