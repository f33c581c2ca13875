"""Jobs through HTTP: what is accepted, shown, listed, cancelled and retried."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx2
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, keys, redis_link
from stoker.local.engines import Engines
from stoker.queue import queue_name
from tests.support.acting_node import ActingNode, manifest
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.families import parent_and_child
from tests.support.nodes import eventually
from tests.support.patience import waiting_for
from tests.support.tenants import Tenant, count_jobs, make_client

pytestmark = pytest.mark.anyio


async def submit(http: httpx2.AsyncClient, app: str, **fields: object) -> dict:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_a_post_is_answered_before_a_redis_that_is_silent(
    engines: Engines,
    database_url: str,
    http: httpx2.AsyncClient,
    node: ActingNode,
    app: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_link, "TIMEOUT_S", 60.0)  # whoever waited for it would do so for longer than the client
    heard: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    is_over = asyncio.Event()

    def hear(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.put_nowait(writer)
        if is_over.is_set():
            writer.close()

    silent = await asyncio.start_server(hear, "127.0.0.1", 0)
    redis_url = f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}/0"
    async with (
        running_api(api_settings(engines, database_url, redis_url=redis_url)) as hampered,
        httpx2.AsyncClient(base_url=hampered.url, headers=http.headers, timeout=10) as client,
    ):
        job = await submit(client, app)
        async with waiting_for("the bell", 10):
            (await heard.get()).close()
        # Those that are on their way here, too: the server would wait for them as it ends.
        is_over.set()
        while not heard.empty():
            heard.get_nowait().close()
    silent.close()

    assert str((await node.claim()).job_id) == job["id"]


async def test_an_accepted_job_is_stored_and_shown(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}, "tags": ["nightly"]})

    job = answer.json()
    assert (answer.status_code, job["state"], job["app"], job["endpoint"]) == (202, "queued", app, "/")
    assert job["input"] == {"prompt": "a cat"}
    assert (job["priority"], job["tags"], job["attempt"], job["result"]) == (5, ["nightly"], 0, None)
    assert job["served"] is True
    assert answer.headers["location"] == job["links"]["self"]
    shown = (await http.get(job["links"]["self"])).json()
    assert shown == job


async def test_the_doorbell_rings_for_an_accepted_job(
    http: httpx2.AsyncClient, node: ActingNode, app: str, engines: Engines
) -> None:
    await submit(http, app)

    async with Redis.from_url(engines.redis_url, socket_timeout=10) as redis:
        bell = await redis.brpop([queue_name(app)], timeout=5)
    assert bell is not None


async def test_a_finished_job_shows_result_attempts_and_timings(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job = await submit(http, app)
    claim = await node.claim()
    running = (await http.get(f"/v1/jobs/{job['id']}")).json()
    await node.succeed(claim, {"answer": 42})

    done = (await http.get(f"/v1/jobs/{job['id']}")).json()

    assert (running["state"], running["attempt"], running["attempts"][0]["outcome"]) == ("running", 1, None)
    assert (done["state"], done["result"], done["error"]) == ("succeeded", {"answer": 42}, None)
    assert (done["attempts"][0]["outcome"], done["attempts"][0]["node_id"]) == ("succeeded", node.node_id)
    assert done["gpu_seconds"] == pytest.approx(1.5)
    assert done["timings"]["queued_s"] >= 0
    assert done["timings"]["run_s"] >= 0


async def test_a_failed_job_shows_its_error(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    job = await submit(http, app, max_attempts=1)
    await node.fail(await node.claim(), "out of paint")

    done = (await http.get(f"/v1/jobs/{job['id']}")).json()

    assert (done["state"], done["error"]["code"], done["error"]["message"]) == ("failed", "app_error", "out of paint")


async def test_the_same_idempotency_key_makes_one_job(
    http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    body = {"app": app, "input": {"prompt": "once"}}
    first = await http.post("/v1/jobs", json=body, headers={"idempotency-key": "k1"})
    again = await http.post("/v1/jobs", json=body, headers={"idempotency-key": "k1"})
    other = await http.post("/v1/jobs", json={**body, "priority": 1}, headers={"idempotency-key": "k1"})

    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert await count_jobs(db, caller.id) == 1


async def test_jobs_are_listed_newest_first_in_pages(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    made = [(await submit(http, app, tags=[f"n{number}"]))["id"] for number in range(5)]

    first = (await http.get("/v1/jobs", params={"limit": 3})).json()
    second = (await http.get("/v1/jobs", params={"limit": 3, "cursor": first["next_cursor"]})).json()

    assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next_cursor"] is None


async def test_a_list_shows_a_job_without_what_may_be_large(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job = await submit(http, app)
    await node.succeed(await node.claim(), {"answer": 42})
    whole = (await http.get(f"/v1/jobs/{job['id']}")).json()

    [listed] = (await http.get("/v1/jobs")).json()["jobs"]

    assert set(whole) - set(listed) == {"input", "result", "outputs", "children", "root_id", "tree"}
    assert listed == {name: whole[name] for name in listed}


async def test_a_list_is_narrowed_by_app_state_and_tag(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    tagged = await submit(http, app, tags=["blue"])
    plain = await submit(http, app)
    await http.post(f"/v1/jobs/{plain['id']}/cancel")

    async def listed(**params: str) -> list[str]:
        return [job["id"] for job in (await http.get("/v1/jobs", params=params)).json()["jobs"]]

    assert await listed(tag="blue") == [tagged["id"]]
    assert await listed(state="cancelled") == [plain["id"]]
    assert await listed(app=app) == [plain["id"], tagged["id"]]
    assert await listed(app="acme/other") == []
    assert await listed(since="2100-01-01T00:00:00Z") == []


async def test_a_job_can_wait_for_its_time(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    job = await submit(http, app, run_at="2030-01-01T00:00:00+02:00")

    assert (job["state"], job["available_at"]) == ("scheduled", "2029-12-31T22:00:00Z")


async def test_a_queued_job_is_cancelled_at_once(http: httpx2.AsyncClient, node: ActingNode, app: str) -> None:
    job = await submit(http, app)

    answer = await http.post(f"/v1/jobs/{job['id']}/cancel")
    again = await http.post(f"/v1/jobs/{job['id']}/cancel")

    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_a_child_is_shown_under_its_parent_and_cancelled_with_it(
    http: httpx2.AsyncClient, node: ActingNode, db: AsyncEngine, app: str
) -> None:
    parent, child_id = await parent_and_child(db, http, node.version)
    shown = (await http.get(f"/v1/jobs/{parent.job_id}")).json()
    listed = (await http.get("/v1/jobs", params={"parent": str(parent.job_id)})).json()

    await http.post(f"/v1/jobs/{parent.job_id}/cancel")
    child = (await http.get(f"/v1/jobs/{child_id}")).json()

    [under] = shown["children"]
    assert under.pop("links")["self"].endswith(f"/v1/jobs/{child_id}")
    name = f"{app}/#first"
    assert under == {
        "id": str(child_id), "app": app, "endpoint": "/", "state": "queued", "name": name, "generation": 1
    }  # fmt: skip
    assert shown["tree"] == {"jobs": 2, "gpu_seconds": 0.0}
    assert [job["id"] for job in listed["jobs"]] == [str(child_id)]
    assert (child["state"], child["parent_id"], child["root_id"]) == ("cancelled", *2 * (str(parent.job_id),))


async def test_the_node_of_a_running_job_is_nudged_to_cancel(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job = await submit(http, app)
    claim = await node.claim()
    async with node.bus.subscribe() as subscription:
        await subscription.add(f"stoker:cancel:{node.node_id}")
        messages = aiter(subscription)
        connected = await anext(messages)
        answer = await http.post(f"/v1/jobs/{job['id']}/cancel")
        nudge = await anext(messages)

    assert connected.data is None
    assert answer.json()["state"] == "running"
    assert answer.json()["cancel_requested_at"] is not None
    assert nudge.data == {"job_id": job["id"]}
    await node.stop(claim)
    assert (await http.get(f"/v1/jobs/{job['id']}")).json()["state"] == "cancelled"


async def test_a_retry_is_a_new_job_that_names_the_old_one(
    http: httpx2.AsyncClient, node: ActingNode, app: str
) -> None:
    job = await submit(http, app, tags=["t"])
    early = await http.post(f"/v1/jobs/{job['id']}/retry")
    await node.succeed(await node.claim(), {})

    answer = await http.post(f"/v1/jobs/{job['id']}/retry")

    assert (early.status_code, early.json()["code"]) == (409, "conflict")
    retried = answer.json()
    assert (answer.status_code, retried["retried_from"], retried["input"]) == (202, job["id"], job["input"])
    assert retried["id"] != job["id"]
    assert (await http.get(f"/v1/jobs/{job['id']}")).json()["state"] == "succeeded"


async def test_a_key_cannot_ask_for_better_than_its_best_priority(
    api: RunningApi, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    tenant = await make_client(api, "run", best_priority=6)
    async with tenant.http as http:
        refused = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "x"}, "priority": 5})
        job = await submit(http, app)

    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert job["priority"] == 6
    assert await count_jobs(db, tenant.id) == 1


async def test_a_retry_gets_no_better_priority_than_its_key_may_ask_for(
    api: RunningApi, http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    urgent = await submit(http, app, priority=0)
    await http.post(f"/v1/jobs/{urgent['id']}/cancel")
    made = await keys.create(db, tenant=await name_of(db, caller), scopes=frozenset({"run"}), best_priority=6)

    answer = await http.post(f"/v1/jobs/{urgent['id']}/retry", headers={"authorization": f"Key {made.key}"})

    assert (answer.status_code, answer.json()["priority"]) == (202, 6)


async def test_a_replay_is_answered_whatever_has_become_of_the_app_and_the_key(
    http: httpx2.AsyncClient, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    body, once = {"app": app, "input": {"prompt": "once"}}, {"idempotency-key": "k"}
    first = await http.post("/v1/jobs", json=body, headers=once)
    stricter = [replace(endpoint, input_schema={"not": {}}) for endpoint in manifest(app).endpoints]
    await apps.publish(db, replace(manifest(app), endpoints=tuple(stricter)))
    async with db.begin() as connection:
        await connection.execute(text("UPDATE api_keys SET best_priority = 7 WHERE tenant_id = :id"), {"id": caller.id})
        await connection.execute(text("UPDATE nodes SET state = 'stopped' WHERE id = :id"), {"id": node.node_id})

    again = await http.post("/v1/jobs", json=body, headers=once)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])

    async def refusal() -> bool | None:  # within half a second
        return (await http.post("/v1/jobs", json=body)).status_code == 422 or None

    await eventually(refusal, lambda: "the API did not hear of the app's new version")


async def name_of(db: AsyncEngine, tenant: Tenant) -> str:
    async with db.connect() as connection:
        found = await connection.execute(text("SELECT name FROM tenants WHERE id = :id"), {"id": tenant.id})
        return str(found.scalar_one())
