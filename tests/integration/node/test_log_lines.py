"""What a node's log says of a job, for who looks for all that concerns one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from stoker import job_logs, job_queries, jobs
from stoker.local.engines import Engines
from stoker.states import JobState
from stoker.storage import Storage
from tests.integration.node.conftest import QUICK
from tests.support.nodes import Desk, NodeProcess, eventually, running_node

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def node(engines: Engines, database_url: str, node_dir: Path) -> Iterator[NodeProcess]:
    with running_node(engines, database_url, node_dir, ["tests.apps.talks:Talker"], **QUICK) as running:
        yield running


def lines_of(node: NodeProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in node.log.splitlines() if line.startswith("{")]


async def said(node: NodeProcess, job_id: UUID, text: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = [line for line in lines_of(node) if text in line.get("line", "") and line.get("job_id") == str(job_id)]
        return found[0] if found else None

    found: dict[str, Any] = await eventually(look, lambda: text)
    return found


async def test_what_an_app_and_its_ranks_print_carries_the_job_the_attempt_and_the_rank(
    node: NodeProcess, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    job_id = await desk.submit("tests/talker", wait_for=str(end))

    by_app = await said(node, job_id, "the app was called")
    by_rank = await said(node, job_id, "rank 1 was called")
    end.touch()
    job = await desk.final(job_id)

    assert job.state is JobState.SUCCEEDED
    assert (by_app["event"], by_app["job_id"], by_app["attempt"]) == ("app_output", str(job_id), 1)
    assert "rank" not in by_app
    assert (by_rank["job_id"], by_rank["attempt"], by_rank["rank"]) == (str(job_id), 1, 1)


async def test_every_line_about_a_job_names_it_and_its_attempt(node: NodeProcess, desk: Desk, tmp_path: Path) -> None:
    job_id = await desk.submit("tests/talker", wait_for=str(tmp_path / "never"))
    await said(node, job_id, "the app was called")

    await jobs.request_cancel(desk.db, job_id, None)
    await desk.final(job_id)

    async def ended() -> list[dict[str, Any]] | None:
        named = [line for line in lines_of(node) if line.get("job_id") == str(job_id)]
        return named if any(line["event"] == "job_ended" for line in named) else None

    named = await eventually(ended, lambda: "the end of the job in the log")
    assert {"job_claimed", "job_stopping", "job_ended"} <= {line["event"] for line in named}
    assert {line.get("attempt") for line in named} == {1}


async def test_a_job_that_says_more_than_rows_may_hold_fails_with_its_whole_log(
    node: NodeProcess, desk: Desk, storage: Storage, tmp_path: Path
) -> None:
    said = await desk.submit("tests/talker", "/much", lines=1500, length=1000)

    job = await desk.final(said)

    rows = [event.data for event in await job_queries.events_after(desk.db, said, 0, limit=5000)]
    file = rows[-2]["log_file"]  # the last row is the job's end
    await storage.get_to(job_logs.key_of(job.tenant_id, said, 1), tmp_path / "log")
    in_rows = [row["message"].split()[0] for row in rows if row.get("message", "").endswith("xxx")]
    in_file = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert (job.state, job.attempts[0].log_file) == (JobState.FAILED, file)
    assert in_rows + in_file == [f"{number:05}" for number in range(1500)]
    assert 500_000 < sum(len(json.dumps(row)) for row in rows) < 1_100_000
