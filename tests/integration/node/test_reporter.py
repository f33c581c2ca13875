"""What an attempt says while it runs, as far as Redis."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

from stoker.bus import KEEP_PROGRESS
from stoker.events import EventId, EventKind
from tests.support.acting_node import ActingNode
from tests.support.nodes import Desk
from worker_node.attempt import Attempt
from worker_node.engines import Engines
from worker_node.host import HostEvent
from worker_node.log_file import Spill
from worker_node.reporter import LOG_BATCH_S, LOG_SOON_S, PROGRESS_A_ROUND, PROGRESS_EVERY_S, Reporter, lines_wait_s

pytestmark = pytest.mark.anyio


@pytest.fixture
async def attempt(engines_of_a_node: Engines, desk: Desk) -> AsyncIterator[Attempt]:
    node = await ActingNode.start(engines_of_a_node.db, engines_of_a_node.bus, f"tests/{uuid4().hex[:8]}")
    await desk.submit(node.version.app, prompt="x", ring=False)
    made = Attempt(await node.claim(), safe_until=1e9)
    yield made
    made.end()


def reporter_of(engines: Engines, attempt: Attempt, spill: Spill) -> Reporter:
    return Reporter(engines.db, engines.bus, attempt, engines.metrics, spill)


async def test_the_rate_of_progress_is_bounded_and_the_last_of_each_rank_arrives(
    engines_of_a_node: Engines, attempt: Attempt, tmp_path: Path
) -> None:
    began = asyncio.get_running_loop().time()
    async with reporter_of(engines_of_a_node, attempt, Spill(tmp_path / "log")) as reporter:
        for step in range(1, 3001):
            for rank in (0, 1):
                reporter.report(HostEvent(EventKind.PROGRESS, rank, {"step": step}))
            await asyncio.sleep(0)  # the reporter's own tasks go on between two steps
    rounds = (asyncio.get_running_loop().time() - began) / PROGRESS_EVERY_S + 2

    kept = await engines_of_a_node.bus.progress_after(attempt.claim.job_id, EventId(0))

    assert kept[-1].id.n == len(kept) <= min(rounds * PROGRESS_A_ROUND, KEEP_PROGRESS)
    assert {event.data["rank"]: event.data["step"] for event in kept} == {0: 3000, 1: 3000}
    counted = {
        sample.name: sample.value
        for family in engines_of_a_node.metrics.registry.collect()
        for sample in family.samples
        if sample.labels == {"kind": "progress"} and sample.name.endswith("_total")
    }
    assert counted["stoker_events_published_total"] == len(kept)
    assert counted["stoker_events_published_total"] + counted["stoker_events_dropped_total"] == 6000


async def test_a_few_steps_in_quick_succession_are_all_told(
    engines_of_a_node: Engines, attempt: Attempt, tmp_path: Path
) -> None:
    async with reporter_of(engines_of_a_node, attempt, Spill(tmp_path / "log")) as reporter:
        for step in range(1, 5):
            reporter.report(HostEvent(EventKind.PROGRESS, 0, {"step": step}))
            await asyncio.sleep(0)

    kept = await engines_of_a_node.bus.progress_after(attempt.claim.job_id, EventId(0))

    assert [event.data["step"] for event in kept] == [1, 2, 3, 4]


def test_a_line_after_a_silence_waits_a_moment_and_those_that_follow_soon_for_their_batch() -> None:
    assert lines_wait_s(math.inf) == lines_wait_s(10 * LOG_BATCH_S) == LOG_SOON_S < LOG_BATCH_S / 2
    assert lines_wait_s(0.0) == LOG_BATCH_S
    assert lines_wait_s(0.25 * LOG_BATCH_S) == 0.75 * LOG_BATCH_S


async def test_lines_that_come_together_become_rows_together(
    engines_of_a_node: Engines, attempt: Attempt, tmp_path: Path
) -> None:
    async with engines_of_a_node.bus.subscribe() as told:
        await told.add(f"stoker:job:{attempt.claim.job_id}")
        heard = aiter(told)
        await anext(heard)
        stored = [attempt.claim.seq]
        async with reporter_of(engines_of_a_node, attempt, Spill(tmp_path / "log")) as reporter:
            for count in (1, 20):
                for number in range(count):
                    reporter.report(HostEvent(EventKind.LOG, 0, {"message": str(number)}))
                stored.append(((await anext(heard)).data or {})["seq"])

    assert [now - before for before, now in pairwise(stored)] == [1, 20]
