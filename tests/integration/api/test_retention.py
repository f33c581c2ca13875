"""What callers see of things that are not kept, what they may have deleted, and how their objects go."""

from __future__ import annotations

import json
from uuid import UUID

import httpx2
import pytest
from anyio import to_thread
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control.pruning import Pruner
from api.control.webhook_body import webhook_body
from stoker import job_queries, removals, uploads
from stoker.client import Client
from stoker.errors import NotFound, PayloadRemoved
from stoker.jobs import Output
from stoker.local.engines import Engines
from stoker.settings import ControlSettings
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings
from tests.support.sse import events, rest
from tests.support.tenants import Tenant

pytestmark = pytest.mark.anyio

CAT = {"prompt": "a cat"}


async def done(http: httpx2.AsyncClient, node: ActingNode, storage: Storage, app: str, **wishes: object) -> Output:
    """The output of a job that has succeeded; its key has the job's id."""
    answer = await http.post("/v1/jobs", json={"app": app, "input": CAT, **wishes})
    assert answer.status_code == 202, answer.text
    claim = await node.claim()
    output = await node.store(storage, claim, "cat.png", "/image", b"png", "image/png")
    await node.succeed(claim, {"image": {"url": f"/outputs/{output.token}/cat.png"}}, [output])
    return output


def job_of(output: Output) -> str:
    return output.key.split("/")[1]


async def run(db: AsyncEngine, statement: str, **values: object) -> None:
    async with db.begin() as connection:
        await connection.execute(text(statement), values)


async def removal(db: AsyncEngine, output: Output) -> list[tuple[int, bool]]:
    """The tries of what is to be done about a job's folder, and whether an error is written there."""
    query = "SELECT tries, last_error IS NOT NULL FROM object_removals WHERE prefix LIKE :job ORDER BY due_at"
    async with db.connect() as connection:
        values = {"job": f"%{job_of(output)}%"}
        return [tuple(row) for row in await connection.execute(text(query), values)]


async def test_an_output_that_has_expired_answers_410_with_a_problem_and_then_its_object_goes(
    engines: Engines,
    database_url: str,
    http: httpx2.AsyncClient,
    node: ActingNode,
    app: str,
    db: AsyncEngine,
    storage: Storage,
) -> None:
    output = await done(http, node, storage, app, keep_outputs=60, store_io=False)
    lives = await http.get(f"/outputs/{output.token}/cat.png")
    aged = "UPDATE jobs SET outputs_expire_at = stoker_now(), finished_at = finished_at - interval '2 h' WHERE id = :id"
    await run(db, aged, id=job_of(output))

    gone = await http.get(f"/outputs/{output.token}/cat.png")
    wanted = api_settings(engines, database_url).model_dump(include=set(ControlSettings.model_fields))
    pruner = Pruner(ControlSettings.model_validate(wanted), db, storage)
    await pruner.prune_wished()
    await pruner.remove_objects()

    job = (await http.get(f"/v1/jobs/{job_of(output)}")).json()
    again = await http.post(f"/v1/jobs/{job_of(output)}/retry")
    assert (lives.status_code, gone.status_code, gone.json()["code"]) == (302, 410, "outputs_removed")
    assert gone.headers["content-type"] == "application/problem+json"
    assert gone.json()["hint"]
    assert await storage.size_of(output.key) is None
    assert (job["state"], job["input"], job["result"]) == ("succeeded", None, None)
    assert all(job[name] for name in ("payload_removed_at", "outputs_removed_at", "outputs_expire_at"))
    assert (again.status_code, again.json()["code"]) == (410, "payload_removed")
    assert await removal(db, output) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/jobs/{}/payload"),
        ("DELETE", "/rest/v1/models/requests/{}/payloads"),
        ("PUT", "/rest/requests/delete_io/{}"),
    ],
)
async def test_a_caller_has_a_payload_deleted_and_what_is_asked_for_it_then_says_so(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, storage: Storage, method: str, path: str
) -> None:
    output = await done(http, node, storage, app)
    job_id = job_of(output)

    answers = [await http.request(method, path.format(job_id)) for _ in range(2)]
    await removals.carry_out(db, storage)

    result = await http.get(f"/queue/{app}/requests/{job_id}")
    status = await http.get(f"/queue/{app}/requests/{job_id}/status")
    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        seen = await rest(raw)
    view = await job_queries.get(db, UUID(job_id), None)
    sent = json.loads(webhook_body(view, "https://stoker.example"))
    assert [answer.is_success for answer in answers] == [True, True], answers[0].text
    if path.startswith("/rest"):
        [links] = answers[0].json().values()
        assert links == [{"link": f"{http.base_url}/outputs/{output.token}/cat.png", "exception": None}]
    assert (result.status_code, result.json()["error_type"]) == (410, "payload_removed")
    assert result.headers["x-fal-request-id"] == job_id
    assert (status.status_code, status.json()["status"]) == (200, "COMPLETED")
    assert (seen[-1].data["state"], "result" in seen[-1].data) == ("succeeded", False)
    assert (sent["payload"], "removed" in sent["payload_error"]) == (None, True)
    assert (await http.get(f"/outputs/{output.token}/cat.png")).status_code == 410
    assert await storage.size_of(output.key) is None


async def test_a_final_job_is_deleted_and_one_that_is_not_is_to_be_cancelled_first(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, storage: Storage
) -> None:
    output = await done(http, node, storage, app)
    waiting = (await http.post("/v1/jobs", json={"app": app, "input": CAT})).json()["id"]

    refused = await http.delete(f"/v1/jobs/{waiting}")
    at_fal = await http.put(f"/rest/requests/delete_io/{waiting}")
    deleted = [(await http.delete(f"/v1/jobs/{job_of(output)}")).status_code for _ in range(2)]
    await removals.carry_out(db, storage)

    assert (refused.status_code, refused.json()["code"], "Cancel it first" in refused.text) == (409, "conflict", True)
    assert at_fal.status_code == 400  # their client would take 409 for something to try again
    assert deleted == [204, 404]
    assert [job["id"] for job in (await http.get("/v1/jobs")).json()["jobs"]] == [waiting]
    assert (await http.get(f"/outputs/{output.token}/cat.png")).status_code == 404
    assert await storage.size_of(output.key) is None
    assert await removal(db, output) == [(0, False)]  # another look, when no attempt can be storing any more


async def test_the_client_wishes_deletes_and_is_told_that_a_result_is_gone(
    api: RunningApi, caller: Tenant, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    with Client(api.url, caller.key) as client:
        wishes = {"store_io": False, "keep_outputs_s": 60.0, "no_retry": True}
        job = await to_thread.run_sync(lambda: client.submit(app, CAT, **wishes))
        await node.succeed(await node.claim(), {"answer": 42})
        before = await to_thread.run_sync(client.result, job.id)
        await caller.http.delete(f"/v1/jobs/{job.id}/payload")
        with pytest.raises(PayloadRemoved):
            await to_thread.run_sync(client.result, job.id)
        await to_thread.run_sync(client.delete, job.id)
        with pytest.raises(NotFound):
            await to_thread.run_sync(client.get, job.id)

    shown = (before.result, before.outputs_expire_at is not None, before.payload_removed_at)
    assert shown == ({"answer": 42}, True, None)
    async with db.connect() as connection:
        acts = await connection.execute(
            text("SELECT action, key_id IS NOT NULL FROM audit_log WHERE target = :id ORDER BY id"), {"id": str(job.id)}
        )
        assert [tuple(row) for row in acts] == [("job.delete_payload", True), ("job.delete", True)]


async def test_objects_wait_for_a_store_that_is_away_and_for_a_process_that_died(
    http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, storage: Storage
) -> None:
    output = await done(http, node, storage, app)
    assert (await http.delete(f"/v1/jobs/{job_of(output)}/payload")).status_code == 204
    away = Storage("http://127.0.0.1:1", "key", "secret", "outputs", "us-east-1")

    done_away, failure = await removals.carry_out(db, away)
    waits = await removal(db, output), await removals.carry_out(db, storage)
    await run(db, "UPDATE object_removals SET due_at = stoker_now() WHERE tries > 0")
    async with db.begin() as dying:  # it has taken the removal and deleted the object, and says no more
        await dying.execute(removals.TAKE, {"limit": 100, "again_s": 0.0, "longest_s": 0.0})
    await storage.delete([output.key])
    await removals.carry_out(db, storage)

    assert (done_away, failure is not None) == (0, True)
    later = (0, False)  # another look, when no attempt can be storing any more
    assert waits == ([(1, True), later], (0, None))
    assert await removal(db, output) == [later]
    assert await storage.size_of(output.key) is None


async def test_uploaded_files_expire_as_was_wished_and_are_deleted_on_demand(
    http: httpx2.AsyncClient, db: AsyncEngine, storage: Storage
) -> None:
    native = (await http.post("/v1/files", params={"keep": 60}, content=b"x")).json()
    presigned = {"file_name": "a", "content_type": "text/plain", "size_bytes": 1, "keep": 60}
    begun = (await http.post("/v1/files/uploads", json=presigned)).json()["file"]
    lifecycle = {"x-fal-object-lifecycle": '{"expiration_duration_seconds": 60}'}
    new = {"file_name": "cat.png", "content_type": "image/png"}
    places = (await http.post("/rest/storage/upload/initiate", json=new, headers=lifecycle)).json()
    await http.put(places["upload_url"], content=b"x")
    at_fal = f"file_{UUID(places['upload_url'].rpartition('/')[2]).hex}"
    usual = (await http.post("/v1/files", content=b"x")).json()
    ids = [native["id"], begun["id"], at_fal, usual["id"]]
    before = [(await http.get(f"/v1/files/{each}")).json() for each in ids]

    await run(db, "UPDATE files SET expires_at = expires_at - interval '60 s'")
    after = [(await http.get(f"/v1/files/{each}")).status_code for each in ids]
    deleted = [(await http.delete(f"/v1/files/{usual['id']}")).status_code for _ in range(2)]

    assert [file["expires_at"] is not None for file in before] == [True, True, True, False]
    assert uploads.is_public(at_fal)
    assert (await http.get(places["file_url"])).status_code == 404
    assert after == [404, 404, 404, 200]
    assert deleted == [204, 404]
    for wrong in (0, "x", "inf", 1e20):
        assert (await http.post("/v1/files", params={"keep": wrong}, content=b"x")).status_code == 422
