"""Deep queues of short jobs: a seat claims the next job while one still runs, and gives it back where that lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from stoker.local.engines import Engines
from stoker.states import JobState
from tests.integration.node.conftest import QUICK
from tests.support.nodes import PATIENCE_S, Desk, NodeProcess, running_node
from worker_node.ahead import MOST

pytestmark = pytest.mark.anyio

APPS = ["tests.apps.well:TwoRanks"]
AHEAD = {**QUICK, "STOKER_AHEAD_BELOW_S": "0.5", "STOKER_LOOK_S": "60"}


@pytest.fixture(scope="module")
def node(engines: Engines, database_url: str, node_dir: Path) -> Iterator[NodeProcess]:
    with running_node(engines, database_url, node_dir, APPS, **AHEAD) as running:
        yield running


@asynccontextmanager
async def refusing(desk: Desk, job_id: UUID) -> AsyncIterator[None]:
    """Nobody can lease this job meanwhile."""
    async with desk.db.begin() as tx:
        await tx.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" IF NEW.job_id = '{job_id}' THEN RAISE 'this one cannot be claimed'; END IF; RETURN NEW; END $$"
            )
        )
        await tx.execute(
            text("CREATE TRIGGER refuse BEFORE INSERT ON job_leases FOR EACH ROW EXECUTE FUNCTION refuse()")
        )
    yield
    async with desk.db.begin() as tx:
        await tx.execute(text("DROP FUNCTION refuse() CASCADE"))


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


async def test_a_claim_ahead_that_fails_costs_no_result(node: NodeProcess, desk: Desk) -> None:
    backlog = [await desk.submit("tests/two-ranks", ring=False, steps=1) for _ in range(3)]
    refused = backlog.pop()  # what is claimed while the second job runs
    async with refusing(desk, refused):
        desk.ring("tests/two-ranks")
        done = [await desk.final(job_id) for job_id in backlog]

    assert [(job.state, job.attempt) for job in done] == [(JobState.SUCCEEDED, 1)] * 2
    desk.ring("tests/two-ranks")
    assert (await desk.final(refused)).attempt == 1


async def test_a_drain_gives_back_what_was_claimed_ahead(node: NodeProcess, desk: Desk, tmp_path: Path) -> None:
    end = tmp_path / "end"
    before = [await desk.submit("tests/two-ranks", ring=False, steps=1) for _ in range(3)]
    lasting = await desk.submit("tests/two-ranks", ring=False, steps=1, wait_for=str(end))
    behind = await desk.submit("tests/two-ranks", steps=1)
    await desk.until(behind, lambda job: job.attempt == 1)

    leaving = node.ask_to_stop()  # the module's node: this test is its last
    end.touch()
    assert leaving.have_ended(within_s=PATIENCE_S), node.log

    ended = [await desk.get(job_id) for job_id in (*before, lasting)]
    assert [(job.state, job.attempt) for job in ended] == [(JobState.SUCCEEDED, 1)] * 4
    given_back = await desk.get(behind)
    assert (given_back.state, [attempt.outcome for attempt in given_back.attempts]) == (JobState.QUEUED, ["released"])
