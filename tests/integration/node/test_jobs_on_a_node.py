"""A node at work: what jobs, their callers and their neighbours see of it. One node serves all tests of this module."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker import job_queries, jobs, nodes
from stoker.bus import Bus
from stoker.local.engines import Engines
from stoker.states import JobState
from stoker.storage import Storage
from tests.integration.node.conftest import QUICK
from tests.support.nodes import Desk, NodeProcess, eventually, running_node

pytestmark = pytest.mark.anyio

APPS = [
    "tests.apps.well:Echo",
    "tests.apps.well:TwoRanks",
    "tests.apps.well:Hesitant",
    "tests.apps.badly:Blocker",
    "tests.apps.badly:Exiter",
    "tests.apps.badly:Failing",
    "tests.apps.exits_on_import:Nobody",
]


@pytest.fixture(scope="module")
def node(engines: Engines, database_url: str, node_dir: Path) -> Iterator[NodeProcess]:
    with running_node(engines, database_url, node_dir, APPS, **QUICK, STOKER_AHEAD_BELOW_S="0") as running:
        yield running


async def test_a_job_leaves_its_rows_its_events_and_its_output(
    node: NodeProcess, desk: Desk, storage: Storage, tmp_path: Path
) -> None:
    job_id = await desk.submit("tests/echo", "/file", text="some words")

    job = await desk.final(job_id)

    assert job.state is JobState.SUCCEEDED
    assert [attempt.outcome for attempt in job.attempts] == ["succeeded"]
    assert [kind for kind, _ in await desk.events(job_id)] == ["state", "state", "output", "state"]
    [output] = job.outputs
    row = await job_queries.output_by_token(desk.db, output.link.split("/")[2])
    here = tmp_path / "fetched"
    await storage.get_to(row.key, here)
    stored = _read(here)
    assert stored == b"some words"
    assert hashlib.sha256(stored).hexdigest() == output.sha256 == job.result["text"]
    assert job.result["file"] == {
        "url": output.link,
        "file_name": "said.txt",
        "content_type": "text/plain",
        "file_size": len("some words"),
    }


async def test_log_lines_are_rows_before_the_final_event(node: NodeProcess, desk: Desk) -> None:
    job_id = await desk.submit("tests/echo", text="hello")

    await desk.final(job_id)

    kinds = [(kind, data.get("message") or data.get("state")) for kind, data in await desk.events(job_id)]
    assert kinds == [("state", "queued"), ("state", "running"), ("log", "saying hello"), ("state", "succeeded")]


async def test_every_rank_works_on_a_job(node: NodeProcess, desk: Desk) -> None:
    job = await desk.final(await desk.submit("tests/two-ranks", steps=5))

    assert job.result == {"steps": 5, "ranks": 2}
    assert job.gpu_seconds > 0


async def test_a_job_whose_doorbell_is_lost_is_found_by_the_look(node: NodeProcess, desk: Desk) -> None:
    job = await desk.final(await desk.submit("tests/echo", ring=False, text="nobody rang"))

    assert job.result == {"text": "nobody rang", "file": None}


async def test_a_job_is_claimed_in_the_transaction_that_finishes_the_one_before(node: NodeProcess, desk: Desk) -> None:
    backlog = [await desk.submit("tests/two-ranks", ring=False, steps=number) for number in range(1, 9)]

    done = [await desk.final(job_id) for job_id in backlog]

    assert [job.result["steps"] for job in done] == list(range(1, 9))
    assert [job.attempt for job in done] == [1] * 8
    assert [job.started_at for job in done[1:]] == [job.finished_at for job in done[:-1]]


async def test_an_app_that_blocks_its_loop_disturbs_no_heartbeat_and_no_other_app(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    blocked = await desk.submit("tests/blocker", path=str(end))
    await desk.says(blocked, "blocking")

    for _ in range(3):
        await _next_heartbeat(desk)
    other = await desk.final(await desk.submit("tests/echo", text="meanwhile"))

    assert other.state is JobState.SUCCEEDED
    assert (await desk.get(blocked)).state is JobState.RUNNING
    end.touch()
    job = await desk.final(blocked)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)


async def test_an_app_that_exits_fails_its_own_job_and_serves_the_next(node: NodeProcess, desk: Desk) -> None:
    job_id = await desk.submit("tests/exiter")
    left = await desk.until(job_id, lambda job: job.attempts != () and job.attempts[0].outcome is not None)

    next_one = await desk.final(await desk.submit("tests/exiter", "/stay"))
    other = await desk.final(await desk.submit("tests/echo", text="still here"))

    assert left.attempts[0].error is not None
    assert left.attempts[0].error["code"] == "worker_crashed"
    assert next_one.state is other.state is JobState.SUCCEEDED


async def test_a_job_that_shared_a_process_with_one_that_killed_it_is_done_and_charged_with_nothing(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    innocent = await desk.submit("tests/exiter", "/linger", path=str(end))
    await desk.says(innocent, "lingering")

    guilty = await desk.submit("tests/exiter")
    await desk.until(innocent, lambda job: job.attempts[0].error is not None)
    end.touch()
    done, failed = await desk.final(innocent), await desk.final(guilty)

    assert (done.state, failed.state) == (JobState.SUCCEEDED, JobState.FAILED)
    codes = [[(attempt.error or {}).get("code") for attempt in job.attempts] for job in (done, failed)]
    assert codes == [["crashed_beside", None], ["crashed_beside", "worker_crashed", "worker_crashed"]]


async def test_a_job_that_makes_no_progress_is_stopped_tried_once_more_and_its_runner_serves_the_next(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    stalled = await desk.submit("tests/two-ranks", "/stall", steps=2, wait_for=str(tmp_path / "never"))
    following = await desk.submit("tests/two-ranks", "/stall", steps=1)

    job = await desk.final(stalled)

    assert job.state is JobState.FAILED
    assert [attempt.error["code"] for attempt in job.attempts if attempt.error] == ["stall_timeout"] * 2
    assert (await desk.final(following)).state is JobState.SUCCEEDED


async def test_an_error_of_the_app_comes_back_in_its_own_words(node: NodeProcess, desk: Desk) -> None:
    job = await desk.final(await desk.submit("tests/failing"))

    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["type_name"]) == ("app_error", "ValueError")
    assert "the app's own words" in job.error["message"]
    assert "badly.py" in job.error["traceback"]


async def test_a_running_job_that_is_cancelled_stops_and_its_runner_serves_the_next(
    node: NodeProcess, desk: Desk, redis_url: str, tmp_path: Path
) -> None:
    job_id = await desk.submit("tests/two-ranks", wait_for=str(tmp_path / "never"))
    await desk.says(job_id, "counting")

    asked = await jobs.request_cancel(desk.db, job_id, None)
    assert asked.node_id is not None
    bus = Bus(redis_url)
    await bus.nudge_cancel(asked.node_id, job_id)
    await bus.close()

    job = await desk.final(job_id)
    assert job.state is JobState.CANCELLED
    assert (await desk.final(await desk.submit("tests/two-ranks", steps=1))).state is JobState.SUCCEEDED


async def test_a_cancel_that_nobody_nudges_is_carried_by_the_heartbeat(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    job_id = await desk.submit("tests/echo", "/wait", wait_for=str(tmp_path / "never"))
    await desk.says(job_id, "waiting")

    await jobs.request_cancel(desk.db, job_id, None)

    assert (await desk.final(job_id)).state is JobState.CANCELLED


async def test_a_job_that_runs_out_of_time_fails_and_says_so(node: NodeProcess, desk: Desk) -> None:
    job = await desk.final(await desk.submit("tests/echo", "/hurried"))

    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "run_timeout"


async def test_a_job_runs_out_of_time_also_before_it_asks_for_ranks(node: NodeProcess, desk: Desk) -> None:
    job = await desk.final(await desk.submit("tests/hesitant"))

    assert job.error is not None
    assert job.error["code"] == "run_timeout"


async def test_an_app_that_cannot_be_imported_is_no_reason_not_to_serve_the_others(
    node: NodeProcess, desk: Desk
) -> None:
    served = ("echo", "two-ranks", "hesitant", "blocker", "exiter", "failing")
    assert set(node.facts["apps"]) == {f"tests/{app}" for app in served}
    assert "exits_on_import" in node.log


async def test_an_admin_sees_the_node_and_its_runners(node: NodeProcess, desk: Desk) -> None:
    async def warm() -> nodes.NodeRow | None:
        [row] = await nodes.list_nodes(desk.db)
        states = {runner.app: runner.state for runner in row.runners}
        return row if states.get("tests/two-ranks") == "warm" else None

    row = await eventually(warm, lambda: "two warm ranks")

    assert (row.is_live, row.state, row.pid) == (True, "ready", node.pid)
    [runner] = [runner for runner in row.runners if runner.app == "tests/two-ranks"]
    assert runner.world_size == 2
    assert len(runner.pids) == 3, "the app host and two ranks"


async def test_no_invariant_is_broken_at_the_end(node: NodeProcess, desk: Desk) -> None:
    async with desk.db.connect() as connection:
        found = await connection.exec_driver_sql("SELECT * FROM v_invariants")
        assert found.all() == []


def _read(path: Path) -> bytes:
    return path.read_bytes()


async def _next_heartbeat(desk: Desk) -> None:
    [before] = await nodes.list_nodes(desk.db)

    async def later() -> bool | None:
        [now] = await nodes.list_nodes(desk.db)
        return now.heartbeat_at > before.heartbeat_at or None

    await eventually(later, lambda: "a heartbeat")
