"""A node that an admin asks to drain: by SQL, from afar."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from stoker import apps, nodes
from stoker.local.engines import Engines
from stoker.nodes import NodeInfo
from stoker.states import JobState
from tests.integration.node.conftest import QUICK
from tests.support.job_world import manifest
from tests.support.nodes import PATIENCE_S, Desk, running_node

pytestmark = pytest.mark.anyio

APPS = ["tests.apps.well:Echo"]


async def test_a_node_that_is_drained_in_sql_ends_its_job_and_then_itself_and_is_asked_once(
    engines: Engines, database_url: str, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    with running_node(engines, database_url, tmp_path, APPS, **QUICK, STOKER_LOOK_S="0.2") as node:
        node_id = str(node.facts["node_id"])
        running = await desk.submit("tests/echo", "/wait", wait_for=str(end))
        await desk.says(running, "waiting")
        family = node.family()
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
            await admin.execute("SELECT stoker_drain(%s)", [node_id])
        await desk.node_is(node_id, "draining")
        waiting = await desk.submit("tests/echo")
        end.touch()
        assert family.have_ended(within_s=PATIENCE_S), node.log
    drained, left = await desk.get(running), await desk.get(waiting)

    assert (drained.state, left.state) == (JobState.SUCCEEDED, JobState.QUEUED)
    assert [attempt.outcome for attempt in drained.attempts] == ["succeeded"]
    assert node.log.count("drain_requested") == 1


async def test_a_node_that_is_started_again_is_not_asked_to_drain_any_more(desk: Desk) -> None:
    version = await apps.publish(desk.db, manifest("tests/nobody"))
    boots = [NodeInfo("n9", uuid4(), "host", 1, [], [version.id], 1, "0") for _ in range(2)]
    await nodes.register(desk.db, boots[0])
    await nodes.request_drain(desk.db, "n9")
    asked = await nodes.is_drain_requested(desk.db, "n9", boots[0].boot_id)

    await nodes.register(desk.db, boots[1])

    assert asked
    assert not await nodes.is_drain_requested(desk.db, "n9", boots[1].boot_id)
