"""Pause, resume and limits of an app over HTTP."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.acting_node import ActingNode

pytestmark = pytest.mark.anyio


async def test_an_admin_pauses_and_resumes_an_app(
    admin: httpx2.AsyncClient, http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    paused = await admin.post(f"/v1/queues/{app}/pause")
    job = (await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})).json()
    shown = (await http.get(f"/v1/apps/{app}")).json()
    resumed = await admin.post(f"/v1/queues/{app}/resume")

    assert paused.json() == {"app": app, "paused": True, "max_running": None, "max_queue_length": None}
    assert (job["state"], shown["paused"], resumed.json()["paused"]) == ("queued", True, False)


async def test_a_full_queue_answers_429_with_a_hint_and_stores_nothing(
    admin: httpx2.AsyncClient, http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    limited = await admin.post(f"/v1/queues/{app}", json={"max_queue_length": 1})
    body = {"app": app, "input": {"prompt": "x"}}
    first = await http.post("/v1/jobs", json=body)

    refused = await http.post("/v1/jobs", json=body)

    assert (limited.json()["max_queue_length"], first.status_code, refused.status_code) == (1, 202, 429)
    assert refused.json()["code"] == "queue_full"
    assert refused.json()["hint"]
    assert int(refused.headers["retry-after"]) >= 1
    assert len((await http.get("/v1/jobs")).json()["jobs"]) == 1
    await admin.post(f"/v1/queues/{app}", json={"max_queue_length": None})
    assert (await http.post("/v1/jobs", json=body)).status_code == 202


async def test_only_admins_control_queues_and_only_those_that_there_are(
    admin: httpx2.AsyncClient, http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    denied = [await http.post(f"/v1/queues/{app}{verb}", json={}) for verb in ("", "/pause", "/resume")]
    unknown = await admin.post("/v1/queues/no/such/pause")
    wrong = await admin.post(f"/v1/queues/{app}", json={"max_running": 0})

    assert [answer.status_code for answer in denied] == [403, 403, 403]
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_app")
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")


async def test_a_queued_job_says_how_many_of_its_tenants_come_before_it(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    body = {"app": app, "input": {"prompt": "x"}}
    first, second = [(await http.post("/v1/jobs", json=body)).json() for _ in range(2)]
    await http.post(f"/v1/jobs/{first['id']}/cancel")

    moved = (await http.get(f"/v1/jobs/{second['id']}")).json()
    gone = (await http.get(f"/v1/jobs/{first['id']}")).json()

    assert [job["queue_position"] for job in (first, second, moved, gone)] == [0, 1, 0, None]
