"""What becomes of jobs when their node is killed, drained, started twice or without its engines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stoker import jobs
from stoker.local.engines import Engines
from stoker.states import JobState
from stoker.storage import Storage
from tests.integration.node.conftest import QUICK
from tests.support.databases import fresh_database
from tests.support.nodes import PATIENCE_S, Desk, NodeProcess, eventually, running_node
from worker_node.registration import take_identity

pytestmark = pytest.mark.anyio

APPS = ["tests.apps.well:Echo"]


@pytest.fixture
def database_url(engines: Engines) -> Iterator[str]:
    """A database for each test: what one leaves waiting, the next one's node would take."""
    with fresh_database(engines) as url:
        yield url


async def test_a_killed_node_does_its_job_again_at_once_when_it_is_back(
    engines: Engines, database_url: str, desk: Desk, storage: Storage, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    with running_node(engines, database_url, tmp_path, APPS, STOKER_LEASE_S="600", STOKER_HEARTBEAT_S="0.5") as first:
        job_id = await desk.submit("tests/echo", "/wait", wait_for=str(end))
        await desk.says(job_id, "waiting")
        first.kill()

    own = tmp_path / "nodes" / first.facts["node_id"]
    left = [own / "inputs" / "a.1" / "0-picture.png", own / "spool" / "0" / "calls" / "a-1" / "out.png"]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half a picture")
    end.touch()
    with running_node(engines, database_url, tmp_path, APPS, **QUICK) as second:
        job = await desk.final(job_id)

    assert [file.exists() for file in left] == [False, False]
    assert second.facts["node_id"] == first.facts["node_id"]
    assert job.state is JobState.SUCCEEDED
    assert [(attempt.attempt, attempt.outcome) for attempt in job.attempts] == [(1, "lease_lost"), (2, "succeeded")]
    assert [output.attempt for output in job.outputs] == [2]
    assert await storage.size_of(f"{job.tenant_id}/{job.id}/2/0-waited.txt") == len("waited")
    assert await storage.size_of(f"{job.tenant_id}/{job.id}/1/0-waited.txt") is None


async def test_a_node_that_stood_still_past_its_lease_adds_nothing_when_it_goes_on(
    engines: Engines, database_url: str, desk: Desk, storage: Storage, tmp_path: Path
) -> None:
    """Its app went on meanwhile and has a result for it."""
    end, short = tmp_path / "end", {"STOKER_LEASE_S": "3", "STOKER_HEARTBEAT_S": "0.3"}

    async def reaped() -> bool | None:
        return bool(await jobs.reap(desk.db)) or None

    with running_node(engines, database_url, tmp_path / "sleeper", APPS, **short) as sleeper:
        job_id = await desk.submit("tests/echo", "/wait", wait_for=str(end), last_words="said by somebody")
        await desk.says(job_id, "waiting")
        os.kill(sleeper.pid, signal.SIGSTOP)
        await eventually(reaped, lambda: "the lease to run out")
        end.touch()
        with running_node(engines, database_url, tmp_path / "awake", APPS, **QUICK):
            job = await desk.final(job_id)
        events, usage = await desk.events(job_id), await _usage(desk)

        os.kill(sleeper.pid, signal.SIGCONT)
        await eventually(
            lambda: _logged(sleeper, "attempt_discarded"), lambda: f"an attempt to be discarded:\n{sleeper.log}"
        )
        sleeper.terminate()

    assert [attempt.outcome for attempt in job.attempts] == ["lease_lost", "succeeded"]
    assert replace(await desk.get(job_id), served=job.served) == job
    assert (await desk.events(job_id), await _usage(desk)) == (events, usage)
    assert usage == [(1, "lease_lost"), (2, "succeeded")]
    assert await storage.size_of(f"{job.tenant_id}/{job.id}/1/0-waited.txt") is None
    assert await storage.size_of(f"{job.tenant_id}/{job.id}/2/0-waited.txt") == len("waited")


async def test_a_draining_node_finishes_what_it_can_takes_nothing_more_and_gives_the_rest_back(
    engines: Engines, database_url: str, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    with running_node(engines, database_url, tmp_path, APPS, arguments=["--node-id", "drained"], **QUICK) as node:
        finished = await desk.submit("tests/echo", "/wait", wait_for=str(end))
        endless = await desk.submit("tests/echo", "/wait", wait_for=str(tmp_path / "never"))
        await desk.says(finished, "waiting")
        await desk.says(endless, "waiting")

        family = node.ask_to_stop()
        await desk.node_is("drained", "draining")
        late = await desk.submit("tests/echo", text="too late")
        end.touch()
        assert (await desk.final(finished)).state is JobState.SUCCEEDED
        node.ask_to_stop()  # once more: the grace is over

        assert family.have_ended(within_s=PATIENCE_S)
    await desk.node_is("drained", "stopped")
    assert (await desk.get(late)).attempts == ()
    given_back = await desk.get(endless)
    assert given_back.state is JobState.QUEUED
    assert [attempt.outcome for attempt in given_back.attempts] == ["released"]
    async with desk.db.connect() as connection:
        counted = await connection.exec_driver_sql(
            "SELECT failures, crashes FROM jobs WHERE id = %(id)s", {"id": endless}
        )
        assert counted.one() == (0, 0)


def test_a_node_that_cannot_reach_postgres_says_so_and_ends(engines: Engines, tmp_path: Path) -> None:
    done = _start(engines, tmp_path, "postgresql://nobody@127.0.0.1:1/none", "--app", APPS[0])

    assert done.returncode == 2
    assert "Postgres cannot be reached" in done.stderr
    assert "hint: Check DATABASE_URL" in done.stderr


def test_an_app_that_is_not_there_is_said_in_words(engines: Engines, database_url: str, tmp_path: Path) -> None:
    done = _start(engines, tmp_path, database_url, "--app", "tests.apps.well:Missing")

    assert done.returncode == 2
    assert "Missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processes_cannot_be_the_same_node(engines: Engines, database_url: str, tmp_path: Path) -> None:
    with take_identity(tmp_path, "taken").lock:
        done = _start(engines, tmp_path, database_url, "--app", APPS[0], "--node-id", "taken")

    assert done.returncode == 2
    assert "another process is node 'taken'" in done.stderr


async def _logged(node: NodeProcess, words: str) -> bool | None:
    return words in node.log or None


async def _usage(desk: Desk) -> list[tuple[int, str]]:
    async with desk.db.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT attempt, outcome FROM usage_records ORDER BY attempt")
        return [(row.attempt, row.outcome) for row in rows]


def _start(engines: Engines, data_dir: Path, database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **engines.environment(), "DATABASE_URL": database_url, "STOKER_DATA_DIR": str(data_dir)}
    return subprocess.run(
        [sys.executable, "-m", "worker_node", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
