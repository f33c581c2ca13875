"""What becomes of a log that is longer than rows may hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from stoker import job_logs, job_queries, jobs
from stoker.events import EventKind
from stoker.job_views import JobView
from stoker.jobs import ErrorReport, Failed, Usage
from stoker.local.engines import Engines as LocalEngines
from stoker.states import JobState
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.nodes import Desk
from tests.support.patience import waiting_for
from tests.support.proxy import proxy
from worker_node.attempt import Attempt
from worker_node.ending import finish, outcome_of
from worker_node.engines import Engines
from worker_node.host import HostEvent
from worker_node.log_file import Spill, Upload
from worker_node.reporter import Reporter
from worker_node.run import Ran

pytestmark = pytest.mark.anyio

LINES = 100
FAILED = Failed(ErrorReport("app_error", "said all"))


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_node.reporter.LOG_BYTES_PER_JOB", 3000)


@pytest.fixture
async def node(engines_of_a_node: Engines) -> ActingNode:
    return await ActingNode.start(engines_of_a_node.db, engines_of_a_node.bus, f"tests/{uuid4().hex[:8]}")


@pytest.fixture
async def attempt(node: ActingNode, desk: Desk) -> AsyncIterator[Attempt]:
    await desk.submit(node.version.app, prompt="x", ring=False)
    made = Attempt(await node.claim(), safe_until=1e9)
    yield made
    made.end()


async def talk(engines: Engines, attempt: Attempt, folder: Path) -> Ran:
    """A run that says LINES lines and fails."""
    spill = Spill(folder / str(attempt.claim.attempt) / "log.txt")
    async with Reporter(engines.db, engines.bus, attempt, engines.metrics, spill) as reporter:
        for number in range(LINES):
            reporter.report(HostEvent(EventKind.LOG, None, {"message": f"line {number:03} {'x' * 50}"}))
    attempt.run_ended(has_result=False)
    return Ran(FAILED, Usage(), spill)


async def end(engines: Engines, attempt: Attempt, ran: Ran) -> None:
    await finish(engines, attempt, await outcome_of(engines, attempt, ran), ran.usage)


async def log_of(desk: Desk, job: JobView) -> list[dict[str, Any]]:
    rows = await job_queries.events_after(desk.db, job.id, 0)
    return [row.data for row in rows if row.kind is EventKind.LOG]


def key_of(attempt: Attempt) -> str:
    claim = attempt.claim
    return job_logs.key_of(claim.tenant_id, claim.job_id, claim.attempt)


async def test_rows_and_file_together_have_every_line_of_a_failed_attempt(
    engines_of_a_node: Engines, desk: Desk, storage: Storage, attempt: Attempt, tmp_path: Path
) -> None:
    await end(engines_of_a_node, attempt, await talk(engines_of_a_node, attempt, tmp_path))

    job = await desk.get(attempt.claim.job_id)
    log = await log_of(desk, job)
    file = log[-1]["log_file"]
    await storage.get_to(key_of(attempt), tmp_path / "read")
    stored = (tmp_path / "read").read_text().splitlines()
    in_rows = [line["message"] for line in log if line["message"].startswith("line")]
    in_file = [line.partition(" ")[2] for line in stored]
    assert in_rows + in_file == [f"line {number:03} {'x' * 50}" for number in range(LINES)]
    assert 10 < len(in_rows) < 60
    assert len(log) == len(in_rows) + 2
    assert (job.attempts[0].outcome, job.attempts[0].log_file) == ("failed", file)
    assert (file["lines"], file["dropped_lines"]) == (len(in_file), 0)
    assert file["file_size"] == (tmp_path / "read").stat().st_size
    assert await job_logs.key_by_token(desk.db, file["url"].split("/")[2]) == key_of(attempt)


async def test_a_later_attempt_has_what_the_earlier_ones_left_of_the_rows(
    engines_of_a_node: Engines, desk: Desk, node: ActingNode, attempt: Attempt, tmp_path: Path
) -> None:
    await talk(engines_of_a_node, attempt, tmp_path)
    await jobs.release(engines_of_a_node.db, {attempt.lease: Usage()}, "node_draining")
    second = Attempt(await node.claim(), safe_until=1e9)

    await end(engines_of_a_node, second, await talk(engines_of_a_node, second, tmp_path))

    job = await desk.get(attempt.claim.job_id)
    log = [line for line in await log_of(desk, job) if line["attempt"] == 2]
    assert sum(line["message"].startswith("line") for line in log) <= 1
    assert job.attempts[0].log_file is None
    assert job.attempts[1].log_file is not None
    assert job.attempts[1].log_file["lines"] >= LINES - 1


async def test_a_store_that_is_away_costs_the_lines_and_not_the_job(
    engines_of_a_node: Engines, desk: Desk, attempt: Attempt, tmp_path: Path
) -> None:
    away = replace(engines_of_a_node, storage=Storage("http://127.0.0.1:1", "key", "secret", "outputs", "us-east-1"))

    await end(away, attempt, await talk(away, attempt, tmp_path))

    job = await desk.get(attempt.claim.job_id)
    last = (await log_of(desk, job))[-1]
    assert job.state is JobState.FAILED
    assert job.attempts[0].log_file is None
    assert "could not be stored" in last["message"]
    assert "log_file" not in last


async def test_an_attempt_whose_lease_is_gone_leaves_no_log_in_the_store(
    engines_of_a_node: Engines, desk: Desk, storage: Storage, attempt: Attempt, tmp_path: Path
) -> None:
    ran = await talk(engines_of_a_node, attempt, tmp_path)
    await jobs.release(engines_of_a_node.db, {attempt.lease: Usage()}, "node_draining")  # it has not heard yet

    await end(engines_of_a_node, attempt, ran)

    assert await storage.size_of(key_of(attempt)) is None
    assert (await desk.get(attempt.claim.job_id)).attempts[0].log_file is None


async def test_a_log_that_was_recorded_in_time_stays_where_the_result_came_too_late(
    engines_of_a_node: Engines, desk: Desk, storage: Storage, attempt: Attempt, tmp_path: Path
) -> None:
    outcome = await outcome_of(engines_of_a_node, attempt, await talk(engines_of_a_node, attempt, tmp_path))
    await jobs.release(engines_of_a_node.db, {attempt.lease: Usage()}, "node_draining")

    await finish(engines_of_a_node, attempt, outcome, Usage())

    assert await storage.size_of(key_of(attempt)) is not None
    assert (await desk.get(attempt.claim.job_id)).attempts[0].log_file is not None


async def test_a_store_that_is_silent_is_not_waited_for_and_what_comes_late_is_deleted(
    engines_of_a_node: Engines,
    desk: Desk,
    storage: Storage,
    attempt: Attempt,
    tmp_path: Path,
    engines: LocalEngines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker_node.log_file.STORE_S", 0.5)
    s3 = engines.s3
    with proxy(urlsplit(s3.endpoint_url).port or 0) as relay:
        far = Storage(f"http://127.0.0.1:{relay.port}", s3.access_key, s3.secret_key, s3.bucket, s3.region)
        slow = replace(engines_of_a_node, storage=far)
        relay.silence()
        async with waiting_for("the end of a job whose log cannot be stored"):
            await end(slow, attempt, await talk(slow, attempt, tmp_path))
        job = await desk.get(attempt.claim.job_id)
        last = (await log_of(desk, job))[-1]
        late = list(Upload.late)
        relay.speak()
        await asyncio.gather(*late)

    assert (job.state, job.attempts[0].log_file, len(late)) == (JobState.FAILED, None, 1)
    assert "could not be stored" in last["message"]
    assert await storage.size_of(key_of(attempt)) is None
