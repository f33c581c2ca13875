"""What is kept how long, by the clock that the test sets; what the store is to delete is left behind for it."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from stoker import apps, children, deletions, job_queries, jobs, sweeps
from stoker.children import NewChild
from stoker.errors import Conflict, NotFound, OutputsRemoved, PayloadRemoved
from stoker.ids import new_id
from stoker.job_values import Claim, Usage
from stoker.keys import Caller
from tests.support.final_jobs import HOUR, SECRET, done, succeed
from tests.support.job_world import Node, World, endpoint, manifest

pytestmark = pytest.mark.anyio


async def family(world: World, others: int = 1) -> tuple[Node, Claim, UUID]:
    """A job that runs and has started others, whose results it has, and one of these; none is to be stored."""
    version = await apps.publish(world.db, manifest("acme/parent", endpoint(uses_gpus=False), num_gpus=0))
    node = await world.node(versions=[version])
    await world.submit(version=version, input=SECRET, store_io=False, keep_outputs_s=HOUR, no_retry=True)
    parent = await node.take()
    worker = await world.node("n2")
    for number in range(others):
        asked = NewChild(version=world.default, endpoint="/", input=SECRET, key=f"number {number}")
        child = await children.submit(world.db, parent.lease, asked)
        await succeed(worker, await worker.take())
    return node, parent, child.job_id


async def kept(world: World, job_id: UUID) -> tuple[bool, bool]:
    """Whether the job has its payload and its outputs."""
    job = await job_queries.get(world.db, job_id, None)
    try:
        await job_queries.output_by_token(world.db, job_id.hex * 2)
    except OutputsRemoved:
        return job.input is not None, False
    return job.input is not None, True


async def caller(world: World, tenant_id: UUID | None = None) -> Caller:
    key = await world.value("SELECT id FROM api_keys LIMIT 1")
    return Caller(key, tenant_id or world.tenant_id, "", frozenset({"run"}), 0)


async def test_what_is_not_to_be_stored_is_there_for_a_while_after_the_end_and_then_nowhere(world: World) -> None:
    node = await world.node()
    private, usual = await done(world, node, store_io=False), await done(world, node)
    await world.set_clock(HOUR - 1)
    early = await sweeps.unstored(world.db, keep_s=HOUR, limit=10)
    await world.set_clock(HOUR)

    assert (early, await sweeps.unstored(world.db, keep_s=HOUR, limit=10)) == (0, 1)

    job = await job_queries.get(world.db, private.job_id, None)
    assert (job.state, job.input, job.result, job.payload_removed_at is not None) == ("succeeded", None, None, True)
    assert await kept(world, private.job_id) == (False, False)
    assert await kept(world, usual.job_id) == (True, True)
    everything = await world.everything()
    told = [row for rows in everything.values() for row in rows if "a secret" in str(row)]
    assert {row.get("job_id") or row["id"] for row in told} == {usual.job_id}
    seen = await job_queries.events_after(world.db, private.job_id, 0)
    [made] = [event.data for event in seen if "url" in event.data]
    assert made == {"name": "cat.png", "url": "/outputs/", "attempt": 1}
    assert await world.value("SELECT count(*) FROM usage_records WHERE job_id = :id", id=private.job_id) == 1
    with pytest.raises(PayloadRemoved):
        await jobs.retry(world.db, private.job_id, None)
    assert await world.rows("SELECT prefix, keep FROM object_removals") == [
        {"prefix": f"{world.tenant_id}/{private.job_id}/", "keep": []}
    ]
    assert await sweeps.unstored(world.db, keep_s=HOUR, limit=10) == 0


async def test_outputs_with_a_time_of_their_own_and_logs_stay_when_the_payload_goes(world: World) -> None:
    node = await world.node()
    job = await done(world, node, store_io=False, keep_outputs_s=2 * HOUR)
    folder = f"{world.tenant_id}/{job.job_id}/"
    await world.rows("UPDATE job_attempts SET log_file = '{}'")
    await world.rows(
        "INSERT INTO files (id, tenant_id, key, content_type, file_name, size_bytes, sha256, job_id) "
        "VALUES ('passed on', :tenant, :key, 'text/plain', 'note', 1, '', :job)",
        tenant=world.tenant_id,
        key=f"{folder}files/note",
        job=job.job_id,
    )
    await world.set_clock(HOUR)

    await sweeps.unstored(world.db, keep_s=HOUR, limit=10)

    assert await kept(world, job.job_id) == (False, True)
    assert await world.value("SELECT keep FROM object_removals") == [f"{folder}1/log.txt", f"{folder}1/0-cat.png"]
    assert await world.value("SELECT count(*) FROM files") == 0


async def test_an_output_is_gone_the_moment_that_its_time_ends_and_its_object_is_given_to_be_deleted(
    world: World,
) -> None:
    node = await world.node()
    job, usual = await done(world, node, keep_outputs_s=60.0), await done(world, node)
    await world.set_clock(59)
    before = await kept(world, job.job_id), await sweeps.expired_outputs(world.db, limit=10)
    await world.set_clock(60)
    at_once = await kept(world, job.job_id)

    assert await sweeps.expired_outputs(world.db, limit=10) == 1

    assert (before, at_once) == (((True, True), 0), (True, False))
    assert await kept(world, usual.job_id) == (True, True)
    assert await world.rows("SELECT prefix, is_folder, keep FROM object_removals") == [
        {"prefix": f"{world.tenant_id}/{job.job_id}/", "is_folder": True, "keep": []}
    ]
    assert await sweeps.expired_outputs(world.db, limit=10) == 0


async def test_what_a_job_has_started_goes_when_the_job_at_the_top_has_ended_and_with_it(world: World) -> None:
    """Another attempt of the parent asks for the child's result, and its own result may name the child's files."""
    node, parent, child_id = await family(world)
    await world.set_clock(2 * HOUR)
    early = await sweeps.unstored(world.db, keep_s=HOUR, limit=10), await kept(world, child_id)
    await succeed(node, parent)
    await world.set_clock(3 * HOUR - 1)
    still = await sweeps.unstored(world.db, keep_s=HOUR, limit=10), await kept(world, child_id)
    await world.set_clock(3 * HOUR)
    at_once = await kept(world, child_id)

    await sweeps.unstored(world.db, keep_s=HOUR, limit=10)
    await sweeps.expired_outputs(world.db, limit=10)

    assert await world.value("SELECT bool_and(no_retry) FROM jobs")
    assert (early, still, at_once) == ((0, (True, True)), (0, (True, True)), (True, False))
    assert await world.value("SELECT count(*) FROM jobs WHERE payload_removed_at IS NULL") == 0
    assert await world.value("SELECT count(*) FROM jobs WHERE outputs_removed_at IS NULL") == 0


async def test_each_kind_of_thing_is_taken_from_old_jobs_up_to_a_place_and_the_job_stays(world: World) -> None:
    node = await world.node()
    old = [await done(world, node, webhook_url="https://receiver.invalid/") for _ in range(3)]
    sent = "UPDATE webhook_deliveries SET state = 'delivered', next_attempt_at = NULL WHERE job_id <> :owed"
    await world.rows(sent, owed=old[0].job_id)
    await world.rows("INSERT INTO delivery_attempts (delivery_id, attempt) SELECT id, 1 FROM webhook_deliveries")
    await world.set_clock(HOUR / 2)
    young = await done(world, node, webhook_url="https://receiver.invalid/")
    await world.set_clock(HOUR)

    for kind in sweeps.BY_AGE:
        handled = [await sweeps.by_age(world.db, kind, keep_s=HOUR, limit=2) for _ in range(3)]
        assert handled == [2, 1, 0]

    ids = [job.job_id for job in old]
    assert [await kept(world, job_id) for job_id in ids] == [(False, False)] * 3
    assert await kept(world, young.job_id) == (True, True)
    events = await world.rows("SELECT job_id, count(*) AS n FROM job_events GROUP BY 1 ORDER BY 1")
    assert [row["n"] for row in events] == [1, 1, 1, 5]
    [last] = await job_queries.events_after(world.db, ids[0], 0)
    assert last.data["state"] == "succeeded"
    tries_of = "SELECT d.state FROM delivery_attempts JOIN webhook_deliveries d ON d.id = delivery_id"
    assert await world.value(tries_of) == "pending"
    assert await world.value("SELECT events_pruned > 0 FROM tenants")
    await world.set_clock(HOUR * 1.5)
    assert await sweeps.by_age(world.db, "payloads", keep_s=HOUR, limit=2) == 1


async def test_what_is_old_is_counted_from_the_end_of_the_job_at_the_top_for_its_whole_family(world: World) -> None:
    node, parent, _ = await family(world)
    await world.set_clock(HOUR)
    early = await sweeps.by_age(world.db, "payloads", keep_s=HOUR, limit=10)
    await succeed(node, parent)
    await world.set_clock(2 * HOUR)

    assert (early, await sweeps.by_age(world.db, "payloads", keep_s=HOUR, limit=10)) == (0, 1)

    assert await world.value("SELECT count(*) FROM jobs WHERE payload_removed_at IS NOT NULL") == 2


@pytest.mark.parametrize("kind", sweeps.BY_AGE)
async def test_a_large_family_is_taken_in_parts_and_the_job_at_the_top_with_the_last(world: World, kind: str) -> None:
    node, parent, _ = await family(world, others=5)
    await succeed(node, parent)
    await world.rows("UPDATE jobs SET webhook_url = 'https://receiver.invalid/'")
    sent = "INSERT INTO webhook_deliveries (id, job_id, tenant_id, url, state)"
    await world.rows(f"{sent} SELECT id, id, tenant_id, '', 'delivered' FROM jobs")
    await world.rows("INSERT INTO delivery_attempts (delivery_id, attempt) SELECT id, 1 FROM webhook_deliveries")
    await world.set_clock(HOUR)
    place = "SELECT count(*) FROM retention_places WHERE job_id = :id"

    handled, moved = [], []
    for _ in range(4):
        handled.append(await sweeps.by_age(world.db, kind, keep_s=HOUR, limit=2))
        moved.append(await world.value(place, id=parent.job_id))

    assert (handled, moved) == ([2, 2, 1, 0], [0, 0, 1, 1])
    left = {
        "payloads": "SELECT count(*) FROM jobs WHERE payload_removed_at IS NULL",
        "outputs": "SELECT count(*) FROM jobs WHERE outputs_removed_at IS NULL",
        "events": "SELECT count(*) - 6 FROM job_events",
        "delivery tries": "SELECT count(*) FROM delivery_attempts",
    }
    assert await world.value(left[kind]) == 0


async def test_outputs_of_a_large_family_expire_in_parts(world: World) -> None:
    node, parent, _ = await family(world, others=5)
    await succeed(node, parent)
    await world.set_clock(HOUR)
    left = "SELECT count(*) FROM jobs WHERE outputs_removed_at IS NULL"

    seen = [(await sweeps.expired_outputs(world.db, limit=2), await world.value(left)) for _ in range(4)]

    assert seen == [(2, 4), (2, 2), (1, 0), (0, 0)]


async def test_children_are_deleted_before_who_started_them_and_usage_outlives_both(world: World) -> None:
    node, parent, _ = await family(world)
    await succeed(node, parent)
    spent = await world.value("SELECT sum(gpu_seconds) FROM v_gpu_seconds")
    await world.set_clock(HOUR)

    handled = [await sweeps.old_jobs(world.db, keep_s=HOUR, limit=10) for _ in range(3)]

    assert handled == [1, 1, 0]
    assert await world.value("SELECT count(*) FROM jobs") == 0
    assert await world.value("SELECT sum(gpu_seconds) FROM v_gpu_seconds") == spent > 0


async def test_files_go_when_their_time_ends_or_that_of_all(world: World) -> None:
    row = "(id, tenant_id, key, content_type, file_name, size_bytes, sha256, created_at, expires_at, job_id)"
    expires = "stoker_now() + make_interval(secs => :keep)"
    values = f"(:id, :tenant, :id, 'text/plain', 'note', 1, '', stoker_now(), {expires}, :job)"
    for name, keep_s, job_id in (("short", 60, None), ("long", 9 * HOUR, None), ("of a job", None, new_id())):
        given = {"id": name, "tenant": world.tenant_id, "keep": keep_s, "job": job_id}
        await world.rows(f"INSERT INTO files {row} VALUES {values}", **given)
    await world.set_clock(60)

    expired = await sweeps.expired_files(world.db, limit=10)
    await world.set_clock(HOUR)
    old = await sweeps.old_files(world.db, keep_s=HOUR, limit=10)

    assert (expired, old) == (1, 1)
    assert await world.value("SELECT id FROM files") == "of a job"
    after = "extract(epoch FROM due_at - :began)::int AS after_s"
    removals = await world.rows(
        f"SELECT prefix, {after}, is_folder FROM object_removals ORDER BY 1, 2", began=world.began
    )
    # Who has a presigned link may still PUT to it: until then there is another look.
    looks = [("long", HOUR), ("long", 2 * HOUR), ("short", 60), ("short", 2 * HOUR)]
    assert [tuple(row.values()) for row in removals] == [(*look, False) for look in looks]


async def test_a_file_that_nobody_can_be_storing_any_more_is_looked_for_once(world: World) -> None:
    values = "'f', :tenant, 'f', 'text/plain', 'note', 1, ''"
    row = "(id, tenant_id, key, content_type, file_name, size_bytes, sha256)"
    await world.rows(f"INSERT INTO files {row} VALUES ({values})", tenant=world.tenant_id)
    await world.set_clock(2 * HOUR)

    assert await sweeps.old_files(world.db, keep_s=HOUR, limit=10) == 1

    assert await world.value("SELECT count(*) FROM object_removals") == 1


async def test_children_of_a_job_that_runs_are_not_deleted_however_old(world: World) -> None:
    """Another attempt of it asks for their results."""
    node, parent, _ = await family(world, others=2)
    await world.set_clock(2 * HOUR)
    running = await sweeps.old_jobs(world.db, keep_s=HOUR, limit=10)
    await succeed(node, parent)
    young = await sweeps.old_jobs(world.db, keep_s=HOUR, limit=10)
    await world.set_clock(3 * HOUR)

    assert (running, young, await sweeps.old_jobs(world.db, keep_s=HOUR, limit=10)) == (0, 0, 2)


async def test_acts_of_admins_are_kept_for_a_time_of_their_own(world: World) -> None:
    await world.rows("INSERT INTO audit_log (action, target) VALUES ('old', 'x')")
    await world.rows("INSERT INTO admin_requests (action, target, done_at) VALUES ('cancel', 'x', stoker_now())")
    await world.set_clock(HOUR)
    await world.rows("INSERT INTO audit_log (action, target) VALUES ('young', 'x')")
    await world.rows("INSERT INTO admin_requests (action, target) VALUES ('cancel', 'open')")

    await sweeps.old_acts(world.db, keep_s=HOUR, limit=10)

    assert [row["action"] for row in await world.rows("SELECT action FROM audit_log")] == ["young"]
    assert [row["target"] for row in await world.rows("SELECT target FROM admin_requests")] == ["open"]


async def test_an_app_says_what_becomes_of_its_jobs_and_a_caller_overrules_it(world: World) -> None:
    private = await apps.publish(world.db, manifest("acme/private", store_io=False, keep_outputs_s=60.0))
    await world.submit(version=private)
    overruled = await world.submit(version=private, store_io=True, keep_outputs_s=HOUR)

    await jobs.request_cancel(world.db, overruled.job_id, None)
    await jobs.retry(world.db, overruled.job_id, None)

    rows = await world.rows("SELECT store_io, keep_outputs_s FROM jobs ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [(False, 60.0), (True, HOUR), (True, HOUR)]


async def test_outputs_of_a_family_wait_for_its_last_member(world: World) -> None:
    """The parent was cancelled while its child ran; nobody would ever come back to what that stores."""
    version = await apps.publish(world.db, manifest("acme/parent", endpoint(uses_gpus=False), num_gpus=0))
    node, worker = await world.node(versions=[version]), await world.node("n2")
    await world.submit(version=version, keep_outputs_s=60.0)
    parent = await node.take()
    asked = NewChild(version=world.default, endpoint="/", input=SECRET, key="first")
    await children.submit(world.db, parent.lease, asked)
    child = await worker.take()
    await succeed(node, parent)
    await world.set_clock(60)
    early = await sweeps.expired_outputs(world.db, limit=10)
    await worker.renew(child)
    await succeed(worker, child)

    assert (early, await sweeps.expired_outputs(world.db, limit=10)) == (0, 1)
    assert await kept(world, child.job_id) == (True, False)


async def test_outputs_expire_as_was_wished_where_the_job_ends_out_of_the_queue(world: World) -> None:
    """It was given back when its child had ended, and then cancelled."""
    _, parent, child_id = await family(world)
    await jobs.release(world.db, {parent.lease: Usage()}, "draining")
    await jobs.request_cancel(world.db, parent.job_id, None)
    await world.set_clock(HOUR)

    assert await sweeps.expired_outputs(world.db, limit=10) == 1

    assert await kept(world, child_id) == (True, False)


async def test_a_job_whose_family_has_not_ended_is_not_deleted(world: World) -> None:
    node, parent, child_id = await family(world)
    me = await caller(world)

    for job_id in (parent.job_id, child_id):
        with pytest.raises(Conflict, match=f"job {parent.job_id}.* is running") as refused:
            await deletions.delete_job(world.db, job_id, me)
        with pytest.raises(Conflict):
            await deletions.delete_payload(world.db, job_id, me)
    assert "Cancel it first" in refused.value.hint
    with pytest.raises(NotFound):
        await deletions.delete_job(world.db, child_id, await caller(world, new_id()))
    await succeed(node, parent)
    await deletions.delete_job(world.db, parent.job_id, me)

    assert await world.value("SELECT count(*) FROM jobs") == 0
    assert await world.value("SELECT count(*) FROM usage_records") == 2
    assert await world.rows("SELECT action, data FROM audit_log WHERE action LIKE 'job.%'") == [
        {"action": "job.delete", "data": {"jobs": 2}}
    ]
    # A look at once, and another one when an attempt that had lost its lease has stopped.
    assert await world.value("SELECT count(*) FROM object_removals WHERE due_at <= stoker_now()") == 2
    assert await world.value("SELECT count(*) FROM object_removals WHERE due_at > stoker_now()") == 2


async def test_what_an_attempt_without_a_lease_stores_after_a_payload_was_deleted_goes_too(world: World) -> None:
    job = await done(world, await world.node())

    await deletions.delete_payload(world.db, job.job_id, await caller(world))

    looks = "SELECT prefix, due_at > stoker_now() AS is_later FROM object_removals ORDER BY due_at"
    folder = f"{world.tenant_id}/{job.job_id}/"
    assert await world.rows(looks) == [{"prefix": folder, "is_later": later} for later in (False, True)]


async def test_a_large_family_is_deleted_in_parts_and_what_is_left_of_it_can_be_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, parent, _ = await family(world, others=5)
    await succeed(node, parent)
    me = await caller(world)
    monkeypatch.setattr(deletions, "AT_ONCE", 2)
    await world.rows("ALTER TABLE audit_log RENAME TO away")
    left = []

    for delete in (deletions.delete_payload, deletions.delete_job):
        with pytest.raises(DBAPIError, match="audit_log"):
            await delete(world.db, parent.job_id, me)
        left.append(await world.value("SELECT count(*) FROM jobs WHERE payload_removed_at IS NULL"))
    left.append(await world.value("SELECT count(*) FROM jobs"))
    await world.rows("ALTER TABLE away RENAME TO audit_log")
    await deletions.delete_job(world.db, parent.job_id, me)

    assert left == [2, 2, 2]
    assert await world.value("SELECT count(*) FROM jobs") == 0
