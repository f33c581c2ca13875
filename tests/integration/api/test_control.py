"""The control loop's duties, each on real rows."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx2
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control.deliverer import Deliverer
from api.control.duties import Control
from api.control.loop import Duty, run_duties
from api.control.pruning import Pruner
from stoker import jobs, stored_files, uploads
from stoker.bus import Bus
from stoker.database import make_engine
from stoker.errors import NotFound, StorageRefused
from stoker.jobs import ErrorReport, Failed, Usage
from stoker.local.engines import Engines
from stoker.queue import Doorbell, queue_name
from stoker.settings import ControlSettings
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.api_server import api_settings
from tests.support.families import parent_and_child
from tests.support.sse import events, named, rest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def control(
    engines: Engines, database_url: str, db: AsyncEngine, bus: Bus, storage: Storage
) -> AsyncIterator[Control]:
    wanted = api_settings(engines, database_url).model_dump(include=set(ControlSettings.model_fields))
    settings = ControlSettings.model_validate({**wanted, "keep_jobs_days": 1.0})
    doorbell = Doorbell(engines.redis_url)
    deliverer = Deliverer(db, public_url=None, allowed_hosts=frozenset())
    yield Control(settings, db, bus, doorbell, storage, deliverer)
    await deliverer.close()
    await doorbell.close()


async def submit(http: httpx2.AsyncClient, app: str, **fields: object) -> str:
    answer = await http.post("/v1/jobs", json={"app": app, "input": {"prompt": "a cat"}, **fields})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


async def state(http: httpx2.AsyncClient, job_id: str) -> str:
    found: str = (await http.get(f"/v1/jobs/{job_id}")).json()["state"]
    return found


async def run(db: AsyncEngine, statement: str, **values: object) -> None:
    async with db.begin() as connection:
        await connection.execute(text(statement), values)


async def bells(engines: Engines, app: str) -> int:
    """Wait for a bell, take it, and say whether there was one."""
    async with Redis.from_url(engines.redis_url, socket_timeout=10) as redis:
        return 0 if await redis.brpop([queue_name(app)], timeout=5) is None else 1


async def test_a_job_whose_lease_ran_out_is_queued_rung_for_and_told_to_its_followers(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, engines: Engines
) -> None:
    job_id = await submit(http, app)
    await bells(engines, app)
    await node.claim()
    await run(db, "UPDATE job_leases SET expires_at = stoker_now() - interval '1 s' WHERE job_id = :id", id=job_id)
    await run(db, "UPDATE nodes SET lease_s = 0 WHERE id = :id", id=node.node_id)  # the server may have just started

    async with events(http, f"/v1/jobs/{job_id}/events", params={"after": "2"}) as raw:
        await control.reap()
        again = await anext(named(raw))

    assert again.data["state"] == "queued"
    assert await bells(engines, app) == 1


async def test_a_job_that_runs_for_long_is_charged_before_it_ends(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    await submit(http, app)
    claim = await node.claim()
    await run(
        db, "UPDATE job_attempts SET claimed_at = claimed_at - interval '60 s' WHERE job_id = :id", id=claim.job_id
    )
    [duty] = [duty for duty in control.duties() if duty.name == "charge_running"]

    await duty.run()

    async with db.connect() as reading:
        charged = "SELECT charged FROM job_leases WHERE job_id = :id"
        assert (await reading.execute(text(charged), {"id": claim.job_id})).scalar_one() >= 60


async def test_leases_are_spared_for_their_length_after_the_database_was_away(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    """What their nodes have finished meanwhile is waiting to be recorded."""
    job_id = await submit(http, app)
    claim = await node.claim()
    await run(db, "UPDATE job_leases SET expires_at = stoker_now() - interval '1 s' WHERE job_id = :id", id=job_id)
    away = make_engine("postgresql://nobody@127.0.0.1:1/none", application_name="tests")

    with pytest.raises(OperationalError):
        await control.reaper.reap(away)
    spared = await control.reaper.reap(db)
    await node.succeed(claim, {"made": "in the dark"})

    assert spared == []
    assert await state(http, job_id) == "succeeded"
    await away.dispose()


async def test_a_reaper_that_has_just_begun_spares_leases_for_their_length_after_the_servers_start(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    """It saw no outage, but there may have been one: it was perhaps away itself."""
    job_id = await submit(http, app)
    await node.claim()
    await run(db, "UPDATE job_leases SET expires_at = stoker_now() - interval '1 s' WHERE job_id = :id", id=job_id)
    lease = "UPDATE nodes SET lease_s = :lease_s WHERE id = :id"

    await run(db, lease, id=node.node_id, lease_s=86_400.0)  # longer than any server of tests has been up
    spared = await control.reaper.reap(db)
    await run(db, lease, id=node.node_id, lease_s=0.0)
    taken = await control.reaper.reap(db)

    assert spared == []
    assert [str(moved.job_id) for moved in taken] == [job_id]


async def test_the_lease_of_a_node_that_stays_silent_after_an_outage_is_not_spared_for_ever(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    job_id = await submit(http, app)
    await node.claim()
    await run(db, "UPDATE job_leases SET expires_at = stoker_now() - interval '1 s' WHERE job_id = :id", id=job_id)
    away = make_engine("postgresql://nobody@127.0.0.1:1/none", application_name="tests")
    with pytest.raises(OperationalError):
        await control.reaper.reap(away)
    assert await control.reaper.reap(db) == []

    await run(db, "UPDATE nodes SET lease_s = 0 WHERE id = :id", id=node.node_id)
    [moved] = await control.reaper.reap(db)

    assert str(moved.job_id) == job_id
    await away.dispose()


async def test_a_job_that_nobody_started_in_time_fails(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    job_id = await submit(http, app, start_timeout=60)
    waits = await submit(http, app, start_timeout=6000)
    await run(db, "UPDATE jobs SET start_deadline = stoker_now() - interval '1 s' WHERE id = :id", id=job_id)

    async with events(http, f"/v1/jobs/{job_id}/events") as raw:
        await control.expire_unstarted()
        seen = await rest(raw)

    assert (seen[-1].data["state"], seen[-1].data["error"]["code"]) == ("failed", "start_timeout")
    assert await state(http, waits) == "queued"


async def test_a_child_whose_parent_has_failed_is_cancelled_and_its_followers_hear_of_it(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, db: AsyncEngine
) -> None:
    parent, child_id = await parent_and_child(db, http, node.version)
    gone = Failed(ErrorReport(code="run_timeout", message="too long"))

    async with events(http, f"/v1/jobs/{child_id}/events") as raw:
        await control.cancel_orphans()
        assert await state(http, str(child_id)) == "queued"
        await jobs.finish(db, parent.lease, gone, Usage())
        await control.cancel_orphans()
        seen = await rest(raw)

    assert seen[-1].data["state"] == "cancelled"


async def test_a_job_whose_time_has_come_is_queued_and_rung_for(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine, engines: Engines
) -> None:
    job_id = await submit(http, app, run_at="2030-01-01T00:00:00Z")
    await run(db, "UPDATE jobs SET available_at = stoker_now() WHERE id = :id", id=job_id)

    await control.promote_due()

    assert await state(http, job_id) == "queued"
    assert await bells(engines, app) == 1


async def test_what_an_admin_asked_for_in_sql_is_carried_out_once(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    job_id = await submit(http, app)
    ask = "INSERT INTO admin_requests (action, target) VALUES (:action, :target)"
    for action, target in (("cancel", job_id), ("retry", job_id), ("cancel", "nonsense"), ("dance", job_id)):
        await run(db, ask, action=action, target=target)

    await asyncio.gather(control.carry_out_requests(), control.carry_out_requests())

    async with db.connect() as connection:
        rows = await connection.execute(text("SELECT action, answer, done_at FROM admin_requests ORDER BY id"))
        answers = rows.all()
    listed = (await http.get("/v1/jobs")).json()["jobs"]
    assert [job["retried_from"] for job in listed] == [job_id, None]
    assert [job["state"] for job in listed] == ["queued", "cancelled"]
    assert [row.answer for row in answers[:2]] == ["cancelled", listed[0]["id"]]
    assert all(row.answer.startswith("refused: ") for row in answers[2:])
    assert all(row.done_at is not None for row in answers)


async def test_a_request_that_is_carried_out_again_finds_the_job_it_made(
    control: Control, http: httpx2.AsyncClient, node: ActingNode, app: str, db: AsyncEngine
) -> None:
    """Its answer was lost after the job had been made."""
    job_id = await submit(http, app)
    await http.post(f"/v1/jobs/{job_id}/cancel")
    await run(db, "INSERT INTO admin_requests (action, target) VALUES ('retry', :id)", id=job_id)
    await control.carry_out_requests()
    await run(db, "UPDATE admin_requests SET done_at = NULL, answer = NULL WHERE target = :id", id=job_id)

    await control.carry_out_requests()

    async with db.connect() as connection:
        found = await connection.execute(text("SELECT answer FROM admin_requests WHERE target = :id"), {"id": job_id})
        answer = found.scalar_one()
    assert [job["id"] for job in (await http.get("/v1/jobs")).json()["jobs"]] == [answer, job_id]


async def test_final_jobs_past_their_retention_are_deleted_with_their_objects(
    control: Control,
    http: httpx2.AsyncClient,
    node: ActingNode,
    app: str,
    db: AsyncEngine,
    storage: Storage,
    tmp_path: Path,
) -> None:
    old, young, waiting = [await submit(http, app) for _ in range(3)]
    keys, files = [], []
    (note := tmp_path / "note").write_bytes(b"note")
    for _ in (old, young):
        claim = await node.claim()
        output = await node.store(storage, claim, "cat.png", "", b"png", "image/png")
        lost = await node.store(storage, replace(claim, attempt=7), "cat.png", "", b"lost", "image/png")
        await node.succeed(claim, {}, [output])
        keys += [output.key, lost.key]
        passed_on = await storage.put_file(f"{claim.tenant_id}/{claim.job_id}/files/f/note", note, "text/plain")
        file_id, about = stored_files.new_file_id(), {"content_type": "text/plain", "file_name": "note"}
        stored = {"key": passed_on.key, "size_bytes": 4, "sha256": passed_on.sha256, **about}
        files.append(
            await stored_files.insert(db, file_id=file_id, tenant_id=claim.tenant_id, job_id=claim.job_id, **stored)
        )
    aged = "UPDATE jobs SET finished_at = finished_at - interval '2 days' WHERE id = :id"
    await run(db, aged, id=old)

    pruner = Pruner(control.settings, db, storage)
    await pruner.prune_old()
    await pruner.remove_objects()

    left = [job["id"] for job in (await http.get("/v1/jobs")).json()["jobs"]]
    assert left == [waiting, young]
    assert [await storage.size_of(key) for key in keys] == [None, None, 3, 4]
    assert [await storage.size_of(file.key) for file in files] == [None, 4]
    with pytest.raises(NotFound):
        await stored_files.get(db, files[0].id, None)
    assert await stored_files.get(db, files[1].id, None) == files[1]


async def test_a_duty_that_fails_stops_neither_itself_nor_the_others() -> None:
    stopping, calls, enough = asyncio.Event(), [], asyncio.Event()

    async def fails() -> None:
        calls.append("fails")
        raise ValueError("broken")

    async def lost() -> None:
        calls.append("lost")
        raise OperationalError("SELECT 1", {}, ConnectionRefusedError(), connection_invalidated=True)

    async def works() -> None:
        calls.append("works")
        if min(calls.count(name) for name in ("fails", "lost")) >= 2:
            enough.set()

    duties = [Duty("fails", 0.01, fails), Duty("lost", 0.01, lost), Duty("works", 0.01, works)]
    running = asyncio.create_task(run_duties(duties, stopping))
    await enough.wait()
    stopping.set()
    await running

    assert calls.count("works") > calls.count("fails") >= 2


async def test_the_process_does_its_duties_until_sigterm(
    engines: Engines,
    database_url: str,
    http: httpx2.AsyncClient,
    node: ActingNode,
    app: str,
    db: AsyncEngine,
    tmp_path: Path,
) -> None:
    job_id, lost = await submit(http, app, start_timeout=60), await submit(http, app)
    await run(db, "UPDATE jobs SET start_deadline = stoker_now() - interval '1 s' WHERE id = :id", id=job_id)
    await node.claim()
    await run(db, "UPDATE job_leases SET expires_at = stoker_now() - interval '1 s' WHERE job_id = :id", id=lost)
    await run(db, "UPDATE nodes SET lease_s = 0 WHERE id = :id", id=node.node_id)  # the server may have just started
    reader, writer = os.pipe()
    environment = {**os.environ, **engines.environment(), "DATABASE_URL": database_url, "STOKER_READY_FD": str(writer)}
    command = [sys.executable, "-m", "api.control"]

    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, pass_fds=[writer], stderr=log)
    os.close(writer)
    try:
        line = await asyncio.to_thread(os.fdopen(reader).readline)
        async with events(http, f"/v1/jobs/{job_id}/events") as raw:
            seen = await rest(raw)
        async with events(http, f"/v1/jobs/{lost}/events", params={"after": "2"}) as raw:
            taken_back = await anext(named(raw))
        process.send_signal(signal.SIGTERM)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert httpx2.Response(200, text=line).json()["ready"] is True
    assert seen[-1].data["state"] == "failed"
    assert (taken_back.data["state"], taken_back.data["reason"]) == ("queued", "lease_lost")
    assert code == 0


async def test_parts_of_an_upload_whose_time_has_ended_are_thrown_away(
    control: Control, http: httpx2.AsyncClient, db: AsyncEngine, storage: Storage
) -> None:
    new = {"file_name": "cat.png", "content_type": "image/png"}
    urls = []
    for _ in range(2):
        places = (await http.post("/rest/storage/upload/initiate-multipart", json=new)).json()
        part = (await http.put(f"{places['upload_url']}/1", content=b"hello")).json()
        urls.append((places["upload_url"], part))
    (left, part_of_left), (done, part) = urls
    assert (await http.post(f"{done}/complete", json={"parts": [part]})).status_code == 200
    upload = await uploads.get(db, UUID(left.rpartition("/")[2]))

    await control.end_uploads()
    still_open = await http.put(f"{left}/2", content=b"x")
    await run(db, "UPDATE uploads SET expires_at = stoker_now()")
    await control.end_uploads()

    assert still_open.status_code == 200
    assert await uploads.expired(db) == []
    with pytest.raises(StorageRefused):
        await storage.complete_multipart(upload.key, str(upload.multipart_id), {1: part_of_left["etag"]})
    file = await stored_files.get(db, f"file_{UUID(done.rpartition('/')[2]).hex}", None)
    assert await storage.size_of(file.key) == 5
