"""Deep queues of short jobs: a seat claims the next job while one still runs, and gives it back where that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.local.engines import Engines
from stoker.states import JobState
from tests.integration.node.conftest import QUICK
from tests.support.nodes import Desk, NodeProcess, running_node
from worker_node.ahead import MOST

pytestmark = pytest.mark.anyio

APPS = ["tests.apps.well:TwoRanks"]
AHEAD = {**QUICK, "STOKER_AHEAD_BELOW_S": "0.5"}


@pytest.fixture(scope="module")
def node(engines: Engines, database_url: str, node_dir: Path) -> Iterator[NodeProcess]:
    with running_node(engines, database_url, node_dir, APPS, **AHEAD) as running:
        yield running


async def test_the_next_job_is_claimed_before_the_one_before_is_recorded(node: NodeProcess, desk: Desk) -> None:
    backlog = [await desk.submit("tests/two-ranks", ring=number == 11, steps=1) for number in range(12)]

    done = [await desk.final(job_id) for job_id in backlog]

    assert [(job.state, job.attempt) for job in done] == [(JobState.SUCCEEDED, 1)] * 12
    started, finished = [job.started_at for job in done], [job.finished_at for job in done]
    assert started == sorted(started)
    assert all(begins <= ends for begins, ends in zip(started[1:], finished[:-1], strict=True))
    assert any(begins < ends for begins, ends in zip(started[1:], finished[:-1], strict=True))
    later = zip(started[MOST + 2 :], finished, strict=False)
    assert all(begins >= ends for begins, ends in later), "a seat had more jobs that were not recorded"


async def test_a_job_behind_one_that_lasts_is_given_back_unharmed(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    before = [await desk.submit("tests/two-ranks", ring=False, steps=1) for _ in range(3)]
    lasting = await desk.submit("tests/two-ranks", ring=False, steps=1, wait_for=str(end))
    behind = await desk.submit("tests/two-ranks", steps=1)

    waiting = await desk.until(behind, lambda job: job.state is JobState.QUEUED and job.attempt == 1)
    end.touch()
    done = [await desk.final(job_id) for job_id in (*before, lasting, behind)]

    assert [attempt.outcome for attempt in waiting.attempts] == ["released"]
    assert [(job.state, job.attempt) for job in done] == [(JobState.SUCCEEDED, 1)] * 4 + [(JobState.SUCCEEDED, 2)]
    states = [(data["state"], data["reason"]) for kind, data in await desk.events(behind) if kind == "state"]
    assert states == [
        ("queued", "submitted"),
        ("running", "claimed"),
        ("queued", "not_begun"),
        ("running", "claimed"),
        ("succeeded", "succeeded"),
    ]
    assert done[-1].gpu_seconds == done[-1].attempts[-1].gpu_seconds


async def test_a_drain_leaves_no_job_that_was_claimed_ahead(
    engines: Engines, database_url: str, tmp_path: Path, desk: Desk
) -> None:
    backlog = [await desk.submit("tests/two-ranks", ring=False, steps=1) for _ in range(40)]
    with running_node(engines, database_url, tmp_path, APPS, **AHEAD) as leaving:
        desk.ring("tests/two-ranks")
        await desk.final(backlog[3])
        leaving.terminate()

    ended = [await desk.get(job_id) for job_id in backlog]
    assert {job.state for job in ended} <= {JobState.SUCCEEDED, JobState.QUEUED}
    assert {attempt.outcome for job in ended for attempt in job.attempts} <= {"succeeded", "released"}
