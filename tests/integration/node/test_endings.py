"""What is recorded of an attempt whose run is over, and what is left of it in the object store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from stoker import jobs
from stoker.errors import StorageUnavailable
from stoker.jobs import Claim, ErrorReport, Failed, Succeeded, Usage
from stoker.states import JobState
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.nodes import PATIENCE_S, Desk
from worker_node.attempt import Attempt, Attempts, StopReason
from worker_node.ending import finish, outcome_of
from worker_node.engines import Engines
from worker_node.host import AppHost, AppSpec, HostResult, LocalFile
from worker_node.patience import Patience
from worker_node.placement import Placement
from worker_node.run import Ran, run
from worker_node.slots import Slots

pytestmark = pytest.mark.anyio

FAR = 1e9


@pytest.fixture
async def node(engines_of_a_node: Engines) -> ActingNode:
    return await ActingNode.start(engines_of_a_node.db, engines_of_a_node.bus, f"tests/{uuid4().hex[:8]}")


@pytest.fixture
async def claim(node: ActingNode, desk: Desk) -> Claim:
    await desk.submit(node.version.app, prompt="x", ring=False)
    return await node.claim()


@pytest.fixture
async def attempt(claim: Claim) -> AsyncIterator[Attempt]:
    made = Attempt(claim, safe_until=FAR)
    yield made
    made.end()


def usage() -> Usage:
    return Usage(gpu_seconds=0.0, gpus=0, phases={})


def ran_with(*files: tuple[str, str], folder: Path) -> Ran:
    """A run that made a file for each name and content type."""
    folder.mkdir()
    made = []
    for name, content_type in files:
        (folder / name).write_bytes(b"bytes")
        made.append(LocalFile("", folder / name, name, content_type, {}))
    return Ran(HostResult({}, tuple(made), 0.0, 0.0, True, None, folder), usage())


async def test_a_drain_does_not_throw_a_result_away(engines_of_a_node: Engines, desk: Desk, attempt: Attempt) -> None:
    attempt.run_ended(has_result=True)
    attempt.stop(StopReason.DRAIN)

    await finish(engines_of_a_node, attempt, Succeeded({"made": 1}), usage())

    assert (await desk.get(attempt.claim.job_id)).state is JobState.SUCCEEDED


async def test_a_drain_gives_back_what_it_stopped(engines_of_a_node: Engines, desk: Desk, attempt: Attempt) -> None:
    attempt.stop(StopReason.DRAIN)

    await finish(engines_of_a_node, attempt, Failed(ErrorReport(code="worker_crashed", message="stopped")), usage())

    assert (await desk.get(attempt.claim.job_id)).state is JobState.QUEUED


async def test_a_job_whose_slots_are_not_left_goes_back_to_the_queue_as_it_was(
    engines_of_a_node: Engines, node: ActingNode, desk: Desk, attempt: Attempt, tmp_path: Path
) -> None:
    """It waits for an app's ranks on slots that another's do not leave."""
    slots, attempts = Slots(1, 0), Attempts()
    slots.add(attempt.claim.app, 1)
    room = Placement(slots, {}, are_gpus=False, on_change=print, on_eviction=print, on_no_slots=attempts.have_no_slots)
    host = AppHost(AppSpec("tests.apps.well:Echo", None, tmp_path, {}), on_change=lambda _: None)
    host.loading.manifest = node.version.manifest
    attempts.add(attempt)
    running = asyncio.create_task(run(host, engines_of_a_node, attempt, room, folder=tmp_path))

    attempts.have_no_slots("tests/another")
    assert not attempt.stopped.is_set()
    attempts.have_no_slots(attempt.claim.app)
    async with asyncio.timeout(PATIENCE_S):
        ran = await running
    await finish(engines_of_a_node, attempt, await outcome_of(engines_of_a_node, attempt, ran), ran.usage)

    assert ran.usage.gpu_seconds == 0
    assert (await desk.get(attempt.claim.job_id)).state is JobState.QUEUED
    again = await node.claim()
    assert (again.job_id, again.attempt) == (attempt.claim.job_id, 2)


async def test_nothing_is_stored_once_the_lease_is_lost(
    engines_of_a_node: Engines, storage: Storage, attempt: Attempt, tmp_path: Path
) -> None:
    attempt.stop(StopReason.LEASE_LOST)

    await outcome_of(engines_of_a_node, attempt, ran_with(("a.txt", "text/plain"), folder=tmp_path / "call"))

    assert await storage.delete_prefix(keys_of(attempt.claim)) == 0
    assert not (tmp_path / "call").exists()


async def test_what_a_lost_attempt_stored_is_deleted(
    engines_of_a_node: Engines, storage: Storage, attempt: Attempt, tmp_path: Path
) -> None:
    ran = ran_with(("a.txt", "text/plain"), ("b.txt", "text/plain"), folder=tmp_path / "call")
    outcome = await outcome_of(engines_of_a_node, attempt, ran)
    assert isinstance(outcome, Succeeded)
    keys = [output.key for output in outcome.outputs]
    assert None not in [await storage.size_of(key) for key in keys]

    attempt.stop(StopReason.LEASE_LOST)
    await finish(engines_of_a_node, attempt, outcome, ran.usage)

    assert [await storage.size_of(key) for key in keys] == [None, None]


async def test_an_attempt_that_was_taken_back_and_has_not_heard_of_it_leaves_nothing(
    engines_of_a_node: Engines, desk: Desk, storage: Storage, node: ActingNode, attempt: Attempt, tmp_path: Path
) -> None:
    """No heartbeat has told it, so it stores and finishes: Postgres alone says whose the job is."""
    ran = ran_with(("a.txt", "text/plain"), folder=tmp_path / "call")
    outcome = await outcome_of(engines_of_a_node, attempt, ran)
    assert isinstance(outcome, Succeeded)
    await jobs.release_former_boots(desk.db, node.node_id, uuid4())
    again = await node.claim()

    finished = await finish(engines_of_a_node, attempt, outcome, ran.usage)

    job = await desk.get(again.job_id)
    assert (finished, job.state, job.attempt, job.outputs) == (None, JobState.RUNNING, 2, ())
    assert [await storage.size_of(output.key) for output in outcome.outputs] == [None]
    await node.succeed(again, {"made": 2})
    assert (await desk.get(again.job_id)).result == {"made": 2}


async def test_a_file_that_the_store_refuses_fails_the_attempt_at_once(
    engines_of_a_node: Engines, attempt: Attempt, tmp_path: Path
) -> None:
    ran = ran_with(("a.txt", "text/plain\nX-Other: 1"), folder=tmp_path / "call")

    async with asyncio.timeout(PATIENCE_S):
        outcome = await outcome_of(engines_of_a_node, attempt, ran)

    assert isinstance(outcome, Failed)
    assert (outcome.error.code, outcome.error.retryable) == ("storage_refused", False)


async def test_a_store_that_stays_away_beyond_all_patience_is_no_failure_of_the_job(
    engines_of_a_node: Engines, desk: Desk, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker_node.patience.GIVE_UP_S", 0.0)
    attempt.claim = replace(attempt.claim, run_timeout_s=0.0)
    away = replace(engines_of_a_node, storage=Storage("http://127.0.0.1:1", "key", "secret", "outputs", "us-east-1"))
    ran = ran_with(("a.txt", "text/plain"), folder=tmp_path / "call")

    outcome = await outcome_of(away, attempt, ran)
    await finish(away, attempt, outcome, ran.usage)

    assert isinstance(outcome, Failed)
    assert outcome.error.code == "storage_unavailable"
    assert (await desk.get(attempt.claim.job_id)).state is JobState.SCHEDULED
    async with desk.db.connect() as connection:
        counts = "SELECT failures + crashes FROM jobs WHERE id = %(id)s"
        assert (await connection.exec_driver_sql(counts, {"id": attempt.claim.job_id})).scalar_one() == 0
    assert not (tmp_path / "call").exists()


async def test_a_store_that_is_away_is_waited_for_as_long_as_the_job_might_have_run(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker_node.patience.GIVE_UP_S", 0.0)
    attempt.claim = replace(attempt.claim, run_timeout_s=36_000.0)
    patience = Patience(attempt, unless=attempt.lease_lost)

    waited = await patience.wait("output_not_stored", StorageUnavailable("away"))
    attempt.stop(StopReason.DRAIN)
    waited_on = await patience.wait("output_not_stored", StorageUnavailable("away"))

    assert (waited, waited_on) == (True, False), "a node that ends does not wait for hours"


def keys_of(claim: Claim) -> str:
    return f"{claim.tenant_id}/{claim.job_id}/{claim.attempt}/"
