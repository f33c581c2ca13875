"""Keys, nodes, queues, apps, health and metrics."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import httpx2
import pytest

from stoker import nodes
from stoker.local.engines import Engines
from stoker.local.part import Part, wait_ready
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.tenants import make_client

pytestmark = pytest.mark.anyio


async def test_a_key_works_until_it_is_revoked(admin: httpx2.AsyncClient, api: RunningApi) -> None:
    made = (await admin.post("/v1/keys", json={"scopes": ["read"], "name": "ci"})).json()
    async with httpx2.AsyncClient(base_url=api.url, headers={"authorization": f"Key {made['key']}"}) as client:
        before = await client.get("/v1/jobs")
        revoked = await admin.delete(f"/v1/keys/{made['id']}")
        after = await client.get("/v1/jobs")
    listed = {key["id"]: key for key in (await admin.get("/v1/keys")).json()["keys"]}

    assert [before.status_code, revoked.status_code, after.status_code] == [200, 204, 401]
    assert listed[made["id"]]["name"] == "ci"
    assert listed[made["id"]]["revoked_at"] is not None
    assert made["key"].partition(":")[2] not in str(listed)


async def test_a_key_past_its_time_is_refused(admin: httpx2.AsyncClient, api: RunningApi) -> None:
    made = (await admin.post("/v1/keys", json={"scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"})).json()

    answer = await admin.get("/v1/jobs", headers={"authorization": f"Key {made['key']}"})

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-12:00", "2099-01-01T00:00:00Z"])
async def test_a_key_cannot_last_beyond_the_calendar(admin: httpx2.AsyncClient, time: str) -> None:
    answer = await admin.post("/v1/keys", json={"scopes": ["read"], "expires_at": time})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_a_key_makes_none_that_may_go_before_it(api: RunningApi) -> None:
    maker = await make_client(api, "admin", best_priority=4)
    async with maker.http as http:
        better = await http.post("/v1/keys", json={"scopes": ["run"], "best_priority": 3})
        same = await http.post("/v1/keys", json={"scopes": ["run"], "name": "same"})
        worse = await http.post("/v1/keys", json={"scopes": ["run"], "name": "worse", "best_priority": 9})
        listed = {key["name"]: key["best_priority"] for key in (await http.get("/v1/keys")).json()["keys"]}

    assert (better.status_code, better.json()["code"]) == (403, "forbidden")
    assert [same.status_code, worse.status_code] == [201, 201]
    assert (listed["same"], listed["worse"]) == (4, 9)


async def test_an_unknown_scope_makes_no_key(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/v1/keys", json={"scopes": ["everything"]})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["errors"][0]["loc"] == ["body", "scopes", 0]


async def test_nodes_and_queues_are_shown_to_admins(admin: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    await admin.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})

    known = {row["node_id"]: row for row in (await admin.get("/v1/nodes")).json()["nodes"]}
    queues = [row for row in (await admin.get("/v1/queues")).json()["queues"] if row["app"] == app]

    assert (known[node.node_id]["state"], known[node.node_id]["apps"]) == ("ready", [app])
    assert [row["queued"] for row in queues] == [1]


async def test_apps_are_shown_with_their_schemas(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    listed = {row["app"]: row for row in (await http.get("/v1/apps")).json()["apps"]}
    shown = (await http.get(f"/v1/apps/{app}")).json()

    assert listed[app] == shown
    assert (shown["live_nodes"], shown["num_gpus"]) == (1, 1)
    assert {endpoint["path"]: endpoint["kind"] for endpoint in shown["endpoints"]} == {
        "/": "inference",
        "/train": "training",
    }
    assert shown["endpoints"][0]["input_schema"]["required"] == ["prompt"]


async def test_the_openapi_of_an_app_leads_nowhere_but_into_itself(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    document = (await http.get(f"/v1/apps/{app}/openapi.json")).json()

    components = document["components"]
    references = re.findall(r'"\$ref": ?"([^"]+)"', (await http.get(f"/v1/apps/{app}/openapi.json")).text)
    assert references
    for reference in references:
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in components[kind]
    assert components["schemas"]["MainInput"]["properties"]["mask"] == {"$ref": "#/components/schemas/MainInput.Box"}


async def test_a_known_app_without_a_live_node_still_takes_jobs(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    await nodes.set_state(node.db, node.node_id, node.boot_id, "stopped")

    job = (await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})).json()

    assert (job["state"], job["served"]) == ("queued", False)


async def test_metrics_count_requests_and_open_jobs(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    job = (await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})).json()
    await http.get(f"/v1/jobs/{job['id']}")

    lines = (await http.get("/metrics")).text.splitlines()

    assert f'stoker_jobs{{app="{app}",state="queued"}} 1.0' in lines
    counted = [line for line in lines if 'route="/v1/jobs/{job_id}"' in line and 'status="200"' in line]
    assert counted
    assert not [line for line in lines if job["id"] in line]


async def test_open_jobs_are_counted_once_in_a_while_however_many_scrape(
    engines: Engines, database_url: str, http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    async with (
        running_api(api_settings(engines, database_url, metrics_age_s=3600)) as frugal,
        httpx2.AsyncClient(base_url=frugal.url) as scraper,
    ):
        first = (await scraper.get("/metrics")).text
        await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})
        second = (await scraper.get("/metrics")).text
    now = (await http.get("/metrics")).text

    open_jobs = f'stoker_jobs{{app="{app}"'
    assert [open_jobs in text for text in (first, second, now)] == [False, False, True]
    assert f'stoker_queue_oldest_wait_seconds{{app="{app}"}}' in now


async def test_a_request_about_a_job_is_logged_with_its_id(
    engines: Engines, database_url: str, http: httpx2.AsyncClient, node: ActingNode, app: str, tmp_path: Path
) -> None:
    own = {"DATABASE_URL": database_url, "STOKER_PORT": "0", "STOKER_LOG_FORMAT": "json"}
    process, reader = Part("api", "api", tmp_path, {**os.environ, **engines.environment(), **own}).start()
    try:
        url = wait_ready(process, reader)["url"]
        async with httpx2.AsyncClient(base_url=url, headers=http.headers) as client:
            job_id = (await client.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}})).json()["id"]
            await client.get(f"/v1/jobs/{job_id}")
            await client.get("/v1/jobs")
    finally:
        process.stop()

    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    asked = [(line["method"], line.get("job_id")) for line in lines if line["event"] == "request"]
    assert asked == [("POST", job_id), ("GET", job_id), ("GET", None)]


async def test_browsers_of_named_origins_may_call(
    engines: Engines, database_url: str, http: httpx2.AsyncClient
) -> None:
    ask = {
        "origin": "https://studio.example",
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization,last-event-id",
    }
    origin = {"origin": ask["origin"]}
    settings = api_settings(engines, database_url, cors_origins="https://studio.example")
    lost = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/nothing"})
    async with running_api(lost) as lost_api, httpx2.AsyncClient(base_url=lost_api.url, headers=origin) as browser:
        unavailable = await browser.get("/v1/jobs", headers={"authorization": f"Key sk_000000000000:{'x' * 43}"})
    async with running_api(settings) as open_api, httpx2.AsyncClient(base_url=open_api.url) as browser:
        allowed = await browser.options("/v1/jobs", headers=ask)
        other = await browser.options("/v1/jobs", headers={**ask, "origin": "https://evil.example"})
    closed = await http.options("/v1/jobs", headers=ask)

    assert allowed.headers["access-control-allow-origin"] == "https://studio.example"
    assert unavailable.status_code == 503
    assert unavailable.headers["access-control-allow-origin"] == "https://studio.example"
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-origin" not in closed.headers
