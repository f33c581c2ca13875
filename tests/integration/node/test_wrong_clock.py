"""Nodes whose clocks are wrong, by more than any lease: what is written is Postgres's time all the same."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from stoker import jobs
from stoker.local.engines import Engines
from stoker.states import JobState
from tests.support.databases import fresh_database
from tests.support.nodes import Desk, eventually, running_node

pytestmark = pytest.mark.anyio

APPS = ["tests.apps.well:Echo"]
WRONG_CLOCK = str(Path(__file__).parents[2] / "support" / "wrong_clock")
SHORT = {"STOKER_LEASE_S": "2", "STOKER_HEARTBEAT_S": "0.4", "STOKER_LOG_FORMAT": "json"}
TEN_MINUTES = 600
"""Many leases, and less than the quarter of an hour at which object stores refuse."""
# Every moment that a job leaves behind.
MOMENTS = """
SELECT at FROM jobs, unnest(ARRAY[created_at, available_at, started_at, finished_at]) AS at UNION ALL
SELECT at FROM job_attempts, unnest(ARRAY[claimed_at, ended_at]) AS at UNION ALL
SELECT created_at FROM job_events UNION ALL SELECT created_at FROM job_outputs UNION ALL
SELECT at FROM usage_records, unnest(ARRAY[started_at, ended_at]) AS at UNION ALL
SELECT at FROM nodes, unnest(ARRAY[registered_at, heartbeat_at]) AS at
"""


@pytest.fixture
def database_url(engines: Engines) -> Iterator[str]:
    with fresh_database(engines) as url:
        yield url


async def ask(desk: Desk, query: str) -> list[Any]:
    async with desk.db.connect() as connection:
        return [row[0] for row in await connection.execute(text(query))]


@pytest.mark.parametrize("off_s", [TEN_MINUTES, -TEN_MINUTES], ids=["fast", "slow"])
async def test_a_node_whose_clock_is_wrong_keeps_its_leases_and_writes_the_right_times(
    engines: Engines, database_url: str, desk: Desk, tmp_path: Path, off_s: int
) -> None:
    end = tmp_path / "end"
    environ = {
        "CLOCK_OFF_S": str(off_s),
        "PYTHONPATH": os.pathsep.join([WRONG_CLOCK, os.environ.get("PYTHONPATH", "")]),
    }
    [began] = await ask(desk, "SELECT clock_timestamp()")

    with running_node(engines, database_url, tmp_path, APPS, **SHORT, **environ) as node:
        quick = await desk.submit("tests/echo", "/file", text="written")
        held = await desk.submit("tests/echo", "/wait", wait_for=str(end))
        await desk.says(held, "waiting")
        claimed = (await desk.get(held)).attempts[0].claimed_at

        async def renewed() -> bool | None:
            assert await jobs.reap(desk.db) == []
            [expires_at] = await ask(desk, f"SELECT expires_at FROM job_leases WHERE job_id = '{held}'")
            return (expires_at - claimed).total_seconds() > 1.5 * float(SHORT["STOKER_LEASE_S"]) or None

        await eventually(renewed, lambda: node.log)
        end.touch()
        ended = [await desk.final(job_id) for job_id in (quick, held)]
        [now] = await ask(desk, "SELECT clock_timestamp()")
        assert abs(offset(node.log, now) - off_s) < TEN_MINUTES / 2
    [finished] = await ask(desk, "SELECT clock_timestamp()")

    assert [(job.state, job.attempt) for job in ended] == [(JobState.SUCCEEDED, 1)] * 2
    assert [at for at in await ask(desk, MOMENTS) if at is not None and not began <= at <= finished] == []
    assert await ask(desk, "SELECT rule FROM v_invariants") == []


def offset(log: str, now: datetime) -> float:
    """How wrong the node's own last line says the time is: else this would be no test."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return (datetime.fromisoformat(lines[-1]["timestamp"]) - now).total_seconds()
