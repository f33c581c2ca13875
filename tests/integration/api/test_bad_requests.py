"""What cannot be accepted: a problem with a code and a hint, and no row."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.local.engines import Engines
from tests.support.acting_node import ActingNode
from tests.support.api_server import api_settings, running_api
from tests.support.tenants import Tenant, count_jobs

pytestmark = pytest.mark.anyio

GOOD = {"prompt": "a cat"}


def check_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["hint"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


INPUTS = [
    ("a field is missing", {}, ["prompt"], "missing"),
    ("a field is unknown", {**GOOD, "colour": 1}, ["colour"], "extra_forbidden"),
    ("a wrong type", {"prompt": 3}, ["prompt"], "string_type"),
    ("a wrong type in an alternative", {**GOOD, "seed": "x"}, ["seed"], "integer_type"),
    ("a wrong type behind a reference", {**GOOD, "mask": {"width": "wide"}}, ["mask", "width"], "integer_type"),
    ("too small", {**GOOD, "steps": 0}, ["steps"], "greater_than_equal"),
    ("too long", {"prompt": "p" * 2001}, ["prompt"], "string_too_long"),
    ("too short", {"prompt": ""}, ["prompt"], "string_too_short"),
]


@pytest.mark.parametrize(("given", "loc", "kind"), [case[1:] for case in INPUTS], ids=[case[0] for case in INPUTS])
async def test_an_input_that_breaks_the_schema_is_named_by_place(
    http: httpx2.AsyncClient,
    caller: Tenant,
    node: ActingNode,
    app: str,
    db: AsyncEngine,
    given: dict[str, Any],
    loc: list[str],
    kind: str,
) -> None:
    answer = await http.post("/v1/jobs", json={"app": app, "input": given})

    problem = check_problem(answer, 422, "invalid_input")
    assert [(entry["loc"], entry["type"]) for entry in problem["errors"]] == [(["body", "input", *loc], kind)]
    assert problem["errors"][0]["msg"]
    assert await count_jobs(db, caller.id) == 0


BODIES = [
    ("no JSON", b"{nope", 400, "invalid_request"),
    ("an empty body", b"", 422, "invalid_input"),
    ("NaN", b'{"app": "APP", "input": {"prompt": NaN}}', 400, "invalid_request"),
    ("broken UTF-8", b'{"app": "APP", "input": {"prompt": "\xff"}}', 400, "invalid_request"),
    ("the character NUL", b'{"app": "APP", "input": {"prompt": "\\u0000"}}', 400, "invalid_request"),
    *(
        (f"nested {n} deep", b'{"app": "APP", "input": ' + b'{"a":' * n + b"1" + b"}" * (n + 1), 400, "invalid_request")
        for n in (100, 300, 990, 2000)
    ),
    ("a list", b"[]", 422, "invalid_input"),
    ("no app", b'{"input": {}}', 422, "invalid_input"),
    ("an unknown field", b'{"app": "APP", "input": {"prompt": "x"}, "colour": 1}', 422, "invalid_input"),
    ("an unknown app", b'{"app": "nobody/nothing", "input": {}}', 404, "unknown_app"),
    ("an unknown endpoint", b'{"app": "APP", "endpoint": "/x", "input": {}}', 404, "unknown_app"),
    ("a priority out of range", b'{"app": "APP", "input": {"prompt": "x"}, "priority": 10}', 422, "invalid_input"),
    ("no time zone", b'{"app": "APP", "input": {"prompt": "x"}, "run_at": "2030-01-01T00:00"}', 422, "invalid_input"),
    *(
        (f"to run at {time}", f'{{"app": "APP", "input": {{"prompt": "x"}}, "run_at": "{time}"}}'.encode(), 422,
         "invalid_input")
        for time in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "2099-01-01T00:00:00Z")
    ),
    ("a webhook that is no URL", b'{"app": "APP", "input": {"prompt": "x"}, "webhook_url": "x"}', 422, "invalid_input"),
    ("a timeout of nothing", b'{"app": "APP", "input": {"prompt": "x"}, "run_timeout": 0}', 422, "invalid_input"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "code"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
async def test_a_body_that_cannot_be_accepted_leaves_no_row(
    http: httpx2.AsyncClient,
    caller: Tenant,
    node: ActingNode,
    app: str,
    db: AsyncEngine,
    body: bytes,
    status: int,
    code: str,
) -> None:
    content = body.replace(b"APP", app.encode())

    answer = await http.post("/v1/jobs", content=content, headers={"content-type": "application/json"})

    check_problem(answer, status, code)
    assert await count_jobs(db, caller.id) == 0


async def test_a_body_that_is_sent_as_a_form_is_told_the_header_that_it_lacks(
    http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str
) -> None:
    content_type = {"content-type": "application/x-www-form-urlencoded"}

    answer = await http.post("/v1/jobs", content=b'{"app": "x/y"}', headers=content_type)

    problem = check_problem(answer, 400, "invalid_request")
    assert "x-www-form-urlencoded" in problem["detail"]
    assert "Content-Type: application/json" in problem["hint"]


async def test_a_body_over_the_limit_is_refused_by_its_length(
    http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "p" * 10_000_000}})

    check_problem(answer, 413, "payload_too_large")
    assert await count_jobs(db, caller.id) == 0


async def test_a_body_over_the_limit_is_refused_by_counting(
    http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"app": "'
        for _ in range(300):
            yield b"x" * 1000

    answer = await http.post("/v1/jobs", content=body(), headers={"content-type": "application/json"})

    check_problem(answer, 413, "payload_too_large")
    assert await count_jobs(db, caller.id) == 0


KEYS = [
    ("no header", None),
    ("no key", "Key"),
    ("another scheme", "Basic sk_x:y"),
    ("no secret", "Key sk_000000000000"),
    ("an unknown key", "Key sk_000000000000:" + "x" * 43),
    ("a very long key", "Key " + "x" * 10_000),
    ("not ASCII", "Key sk_é:ü"),
]


@pytest.mark.parametrize("header", [case[1] for case in KEYS], ids=[case[0] for case in KEYS])
async def test_without_a_valid_key_nothing_is_accepted(
    http: httpx2.AsyncClient, node: ActingNode, app: str, header: str | None
) -> None:
    headers = {} if header is None else {"authorization": header.encode()}

    async with httpx2.AsyncClient(base_url=http.base_url) as anybody:
        answer = await anybody.post("/v1/jobs", json={"app": app, "input": GOOD}, headers=headers)

    check_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Key"


async def test_a_secret_of_another_key_is_not_accepted(http: httpx2.AsyncClient, caller: Tenant) -> None:
    key_id = caller.key.partition(":")[0]

    answer = await http.get("/v1/apps", headers={"authorization": f"Key {key_id}:{'x' * 43}"})

    check_problem(answer, 401, "unauthenticated")


async def test_bearer_is_accepted_as_well(http: httpx2.AsyncClient, caller: Tenant) -> None:
    answer = await http.get("/v1/apps", headers={"authorization": f"Bearer {caller.key}"})

    assert answer.status_code == 200


PATHS = [
    ("GET", "/nowhere", 404, "not_found"),
    ("GET", "/v1/jobs/00000000-0000-7000-8000-000000000000", 404, "not_found"),
    ("GET", "/v1/jobs/not-an-id", 422, "invalid_input"),
    ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
    ("GET", "/v1/jobs?limit=0", 422, "invalid_input"),
    ("GET", "/v1/jobs?state=lost", 422, "invalid_input"),
    ("GET", "/v1/jobs?cursor=bogus", 400, "invalid_request"),
    ("GET", "/v1/jobs?tag=%00", 422, "invalid_input"),
    ("GET", "/v1/apps/no/body", 404, "unknown_app"),
    ("GET", "/v1/apps/no%00/body", 404, "unknown_app"),
    ("GET", "/v1/files/file_00", 404, "not_found"),
    ("GET", "/v1/jobs?since=0.5", 422, "invalid_input"),
    ("GET", "/v1/jobs?cursor={01a20089-9d84-7487-a91f-2a39e1ca1e42}", 400, "invalid_request"),
    ("GET", "/v1/jobs/00000000-0000-7000-8000-000000000000/events?after=1%20", 404, "not_found"),
    ("GET", "/v1/files/file_" + "0" * 32, 404, "not_found"),
    ("GET", "/v1/jobs/00000000-0000-7000-8000-000000000000/events", 404, "not_found"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), PATHS, ids=[f"{case[0]} {case[1]}" for case in PATHS])
async def test_every_error_of_the_framework_is_a_problem_too(
    http: httpx2.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    check_problem(await http.request(method, path), status, code)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", {"GET", "POST"}),
        ("/v1/keys", {"GET", "POST"}),
        ("/v1/webhooks/secrets", {"GET", "POST"}),
        ("/v1/files/uploads", {"POST"}),
        ("/outputs/" + "t" * 32 + "/a.png", {"GET", "HEAD"}),
    ],
)
async def test_a_path_names_all_of_its_methods_to_who_tries_another(
    http: httpx2.AsyncClient, path: str, methods: set[str]
) -> None:
    answer = await http.request("PATCH", path)

    check_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == methods


TYPES = [
    ("/v1/jobs", {"app": "a/b", "priority": True}, ["priority"]),
    ("/v1/jobs", {"app": "a/b", "max_attempts": "3"}, ["max_attempts"]),
    ("/v1/jobs", {"app": "a/b", "run_timeout": "60"}, ["run_timeout"]),
    ("/v1/jobs", {"app": "a/b", "run_at": 1767225600}, ["run_at"]),
    ("/v1/jobs", {"app": "a/b", "run_at": "1767225600"}, ["run_at"]),
    ("/v1/files/uploads", {"file_name": "x", "content_type": "a/b", "size_bytes": False}, ["size_bytes"]),
    ("/v1/files/uploads", {"file_name": "x", "content_type": "a/b", "size_bytes": 1.5}, ["size_bytes"]),
    ("/v1/keys", {"scopes": ["read"], "best_priority": "0"}, ["best_priority"]),
    ("/v1/webhooks/secrets", {"at_once": 0}, ["at_once"]),
    ("/v1/webhooks/secrets", {"at_once": "no"}, ["at_once"]),
]


@pytest.mark.parametrize(("path", "body", "loc"), TYPES)
async def test_what_is_of_another_type_is_not_taken_for_what_it_may_mean(
    admin: httpx2.AsyncClient, path: str, body: dict[str, Any], loc: list[str]
) -> None:
    problem = check_problem(await admin.post(path, json=body), 422, "invalid_input")

    assert [entry["loc"] for entry in problem["errors"]] == [["body", *loc]]


async def test_a_whole_number_may_be_written_with_a_point(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    answer = await http.post("/v1/jobs", json={"app": app, "input": GOOD, "priority": 7.0, "max_attempts": 2.0})

    assert (answer.status_code, answer.json()["priority"], answer.json()["max_attempts"]) == (202, 7, 2)


async def test_an_empty_place_in_a_stream_is_none(http: httpx2.AsyncClient) -> None:
    for query in ("", "after="):
        answer = await http.get(f"/v1/events?{query}", headers={"accept": "application/json", "last-event-id": ""})

        assert answer.status_code == 200, answer.text


async def test_a_request_keeps_the_id_that_its_caller_gave(http: httpx2.AsyncClient) -> None:
    kept = await http.get("/healthz", headers={"x-request-id": "mine-1"})
    replaced = await http.get("/healthz", headers={"x-request-id": "not ok!"})

    assert kept.headers["x-request-id"] == "mine-1"
    assert len(replaced.headers["x-request-id"]) == 32


async def test_a_problem_does_not_repeat_what_was_sent(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    secret = "s3cret" * 1000

    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": secret}})

    assert "s3cret" not in json.dumps(answer.json())


async def test_a_time_to_run_that_has_passed_is_now(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    body = {"app": app, "input": GOOD, "run_at": "0001-01-01T12:00:00+12:00"}

    answer = await http.post("/v1/jobs", json=body)
    read = await http.get(answer.headers["location"])

    assert (answer.status_code, read.status_code, read.json()["state"]) == (202, 200, "queued")


async def test_a_large_input_is_checked_like_any_other(
    http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    deep = b'{"app": "' + app.encode() + b'", "input": {"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}"

    wrong = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "p" * 100_000}})
    nested = await http.post("/v1/jobs", content=deep, headers={"content-type": "application/json"})

    problem = check_problem(wrong, 422, "invalid_input")
    assert [entry["loc"] for entry in problem["errors"]] == [["body", "input", "prompt"]]
    check_problem(nested, 400, "invalid_request")
    assert await count_jobs(db, caller.id) == 0


async def test_a_database_that_takes_no_writes_for_now_is_said_so(
    engines: Engines, database_url: str, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    change = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {}', current_database()); END $$"
    async with db.begin() as connection:
        await connection.execute(text(change.format("SET default_transaction_read_only = on")))
    try:
        async with (
            running_api(api_settings(engines, database_url)) as reading,
            httpx2.AsyncClient(base_url=reading.url, headers=http.headers, timeout=20) as client,
        ):
            answer = await client.post("/v1/jobs", json={"app": app, "input": GOOD})
    finally:
        async with db.begin() as connection:
            await connection.execute(text("SET LOCAL transaction_read_only = off"))
            await connection.execute(text(change.format("RESET default_transaction_read_only")))

    check_problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0
