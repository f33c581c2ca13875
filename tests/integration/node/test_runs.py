"""One run of an attempt against an app host that is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stoker.jobs import Failed, Stopped
from tests.support.claims import a_claim
from tests.support.nodes import PATIENCE_S
from worker_node.attempt import Attempt, StopReason
from worker_node.engines import Engines
from worker_node.host import AppHost, AppSpec, HostCall, HostResult
from worker_node.placement import Placement
from worker_node.run import run
from worker_node.slots import Slots

pytestmark = pytest.mark.anyio

FAR = 1e9


@pytest.mark.parametrize(
    ("reason", "expected"),
    [(StopReason.CANCEL, Stopped), (StopReason.RUN_TIMEOUT, Failed)],
)
async def test_a_job_that_is_stopped_while_its_app_is_down_does_not_wait_for_the_app(
    engines_of_a_node: Engines, tmp_path: Path, reason: StopReason, expected: type
) -> None:
    down = AppHost(AppSpec("tests.apps.well:Echo", None, tmp_path, {}), on_change=lambda _: None)
    attempt = Attempt(a_claim(), safe_until=FAR)
    nowhere = Placement(Slots(1, 0), {}, are_gpus=False, on_change=print, on_eviction=print, on_no_slots=print)
    running = asyncio.create_task(run(down, engines_of_a_node, attempt, nowhere, folder=tmp_path))

    attempt.stop(reason)
    async with asyncio.timeout(PATIENCE_S):
        ran = await running

    assert isinstance(ran.ended, expected)
    attempt.end()


@pytest.mark.parametrize("reason", [StopReason.CANCEL, StopReason.LEASE_LOST])
async def test_a_job_that_was_stopped_before_its_turn_does_not_begin(
    engines_of_a_node: Engines, tmp_path: Path, reason: StopReason
) -> None:
    told: list[HostCall] = []

    class Told(AppHost):
        async def call(self, call: HostCall) -> HostResult:
            told.append(call)
            return await super().call(call)

    host = Told(AppSpec("tests.apps.well:Echo", None, tmp_path, {}), on_change=lambda _: None)
    nowhere = Placement(Slots(1, 0), {}, are_gpus=False, on_change=print, on_eviction=print, on_no_slots=print)
    attempt = Attempt(a_claim(), safe_until=FAR)
    attempt.stop(reason)

    async with asyncio.timeout(PATIENCE_S):
        await run(host, engines_of_a_node, attempt, nowhere, folder=tmp_path)

    assert told == []
    attempt.end()
