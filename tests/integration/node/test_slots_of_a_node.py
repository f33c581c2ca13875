"""Two apps with ranks on a node with one slot: they take turns, and neither is locked out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import psutil
import pytest

from stoker import nodes
from stoker.local.engines import Engines
from stoker.nodes import RunnerRow
from stoker.states import JobState
from tests.apps.turns import Right
from tests.integration.node.conftest import QUICK
from tests.support.nodes import PATIENCE_S, Desk, NodeProcess, eventually, running_node
from tests.support.proxy import Proxy, proxy

pytestmark = pytest.mark.anyio

LEFT, RIGHT, FRAGILE = "tests/left", "tests/right", "tests/fragile"
APPS = ["tests.apps.turns:Left", "tests.apps.turns:Right", "tests.apps.turns:Fragile"]
ONE_SLOT = ["--world-size", "1", "--slots", "1"]
DEEP = 40


@pytest.fixture(scope="module")
def store(engines: Engines) -> Iterator[Proxy]:
    """What lies between the node and the object store."""
    port = urlsplit(engines.s3.endpoint_url).port
    assert port is not None
    with proxy(port) as relay:
        yield relay


@pytest.fixture(scope="module")
def node(engines: Engines, database_url: str, node_dir: Path, store: Proxy) -> Iterator[NodeProcess]:
    settings = {**QUICK, "STOKER_LOOK_S": "0.2", "STOKER_YIELD_AFTER_S": "0.5"}
    settings["S3_ENDPOINT_URL"] = f"http://127.0.0.1:{store.port}"
    with running_node(engines, database_url, node_dir, APPS, arguments=ONE_SLOT, **settings) as running:
        yield running
        family = running.ask_to_stop()
        assert family.have_ended(within_s=PATIENCE_S), running.log


async def test_an_idle_runner_makes_room_for_another_apps_job_once_its_processes_are_gone(
    node: NodeProcess, desk: Desk
) -> None:
    first = await desk.final(await desk.submit(LEFT, runs=True))
    held = await runner(desk, LEFT, lambda row: row.state == "warm")

    second = await desk.final(await desk.submit(RIGHT, watch=first.result["rank_pid"]))
    left = await runner(desk, LEFT, lambda row: row.slots == [])

    assert (held.slots, first.result["rank_pid"] in held.pids) == ([0], True)
    assert held.used_at is not None
    assert second.result["watched_is_there"] is False
    assert (left.state, len(left.pids)) == ("none", 1), "its app host stays"


async def test_ranks_end_after_keep_alive_and_the_next_job_starts_new_ones(node: NodeProcess, desk: Desk) -> None:
    first = await desk.final(await desk.submit(RIGHT, runs=True))
    gone = await runner(desk, RIGHT, lambda row: (row.state, row.slots) == ("none", []))
    second = await desk.final(await desk.submit(RIGHT, runs=True))

    assert gone.used_at is not None
    assert not psutil.pid_exists(first.result["rank_pid"])
    assert second.result["rank_pid"] != first.result["rank_pid"]


async def test_ranks_whose_job_made_a_file_are_kept_as_long_as_any(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job_id = await desk.submit(RIGHT, wait_for=str(gate), writes=True)
    await desk.says(job_id, "taken")
    await started_ago(desk, job_id, 2 * Right.keep_alive)
    at_work_until = datetime.now(UTC)

    gate.touch()
    await runner(desk, RIGHT, lambda row: row.slots == [])

    ends = [json.loads(line) for line in node.log.splitlines() if '"ranks_ended"' in line and RIGHT in line]
    assert datetime.fromisoformat(ends[-1]["timestamp"]) - at_work_until >= timedelta(seconds=Right.keep_alive)


async def test_ranks_without_work_make_room_while_files_wait_for_a_store_that_is_away(
    node: NodeProcess, store: Proxy, desk: Desk
) -> None:
    store.cut()
    waiting = [await desk.submit(RIGHT, writes=True) for _ in range(2)]
    await desk.says(waiting[1], "taken")

    other = await desk.final(await desk.submit(LEFT))
    meanwhile = [(await desk.get(job_id)).state for job_id in waiting]
    store.mend()

    done = [await desk.final(job_id) for job_id in waiting]
    assert (other.state, meanwhile) == (JobState.SUCCEEDED, [JobState.RUNNING] * 2)
    assert [(job.state, job.attempt) for job in done] == [(JobState.SUCCEEDED, 1)] * 2


async def test_a_deep_queue_does_not_lock_other_apps_out_though_nobody_rings_for_them(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    head = await desk.submit(RIGHT, wait_for=str(gate))
    await desk.says(head, "taken")
    queue = [head, *[await desk.submit(RIGHT, ring=False) for _ in range(DEEP)]]

    other = await desk.submit(LEFT, ring=False)
    await waited(desk, other, 0.5)
    light = await desk.final(await desk.submit(RIGHT, "/light"))
    state_meanwhile = (await desk.get(other)).state
    gate.touch()

    served = await desk.final(other)
    done = [await desk.final(job_id) for job_id in queue]
    assert (light.state, state_meanwhile) == (JobState.SUCCEEDED, JobState.QUEUED), "without GPUs one is served"
    assert served.state is JobState.SUCCEEDED
    assert served.finished_at < done[-1].finished_at
    assert [(job.state, job.attempt) for job in done] == [(JobState.SUCCEEDED, 1)] * len(done)


async def test_a_job_with_a_slot_may_call_no_app_and_the_node_looks_after_all_apps_as_before(
    node: NodeProcess, desk: Desk
) -> None:
    caller = await desk.final(await desk.submit(LEFT, "/calls"))

    others = [await desk.final(await desk.submit(app, ring=False)) for app in (LEFT, RIGHT)]

    assert caller.error is not None
    assert caller.error["code"] == "call_refused"
    assert [job.state for job in others] == [JobState.SUCCEEDED] * 2


async def test_an_app_that_crashes_job_after_job_rests_and_the_others_go_on(node: NodeProcess, desk: Desk) -> None:
    for _ in range(3):
        await desk.submit(FRAGILE, runs=True, ring=False)
    resting = await runner(desk, FRAGILE, lambda row: row.state == "quarantined")

    well = await desk.submit(FRAGILE)
    other = await desk.final(await desk.submit(LEFT))

    assert resting.quarantined_until is not None
    assert other.state is JobState.SUCCEEDED
    assert (await desk.get(well)).state is JobState.QUEUED
    assert "app_quarantined" in node.log


def test_an_app_that_wants_more_slots_than_there_are_is_refused_with_a_hint(
    engines: Engines, database_url: str, tmp_path: Path
) -> None:
    environ = {**os.environ, **engines.environment(), "DATABASE_URL": database_url, "STOKER_DATA_DIR": str(tmp_path)}
    words = ["--app", "tests.apps.turns:Large", "--slots", "2"]

    ended = subprocess.run(
        [sys.executable, "-m", "worker_node", *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert "error: tests/large wants 5 slots, and the node has 2" in ended.stderr
    assert "--world-size 2" in ended.stderr.rpartition("hint: ")[2]


async def runner(desk: Desk, app: str, is_so: Callable[[RunnerRow], bool]) -> RunnerRow:
    """The app's runner as the list of nodes shows it, as soon as ``is_so``."""

    found: list[RunnerRow] = []

    async def look() -> RunnerRow | None:
        nonlocal found
        found = [row for node in await nodes.list_nodes(desk.db) for row in node.runners if row.app == app]
        return next((row for row in found if is_so(row)), None)

    return await eventually(look, lambda: f"a change of the runner of {app}: {[row.state for row in found]}")


async def waited(desk: Desk, job_id: UUID, for_s: float) -> None:
    """Return when the job has been waiting so long, by the database's clock."""
    await _ago(desk, job_id, "available_at", for_s)


async def started_ago(desk: Desk, job_id: UUID, for_s: float) -> None:
    """Return when the job has been running so long, by the database's clock."""
    await _ago(desk, job_id, "started_at", for_s)


async def _ago(desk: Desk, job_id: UUID, time: str, for_s: float) -> None:
    query = f"SELECT {time} < stoker_now() - make_interval(secs => {for_s}) FROM jobs WHERE id = '{job_id}'"

    async def look() -> bool | None:
        async with desk.db.connect() as connection:
            return (await connection.exec_driver_sql(query)).scalar_one() or None

    await eventually(look, lambda: f"job {job_id} to have waited")
