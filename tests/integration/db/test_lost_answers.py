"""Claims that were committed and whose answers never reached their node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stoker import job_queries
from stoker.jobs import Moved
from stoker.states import JobState
from tests.support.job_world import World
from worker_node.attempt import Attempt, Attempts
from worker_node.heartbeat import Heartbeat
from worker_node.registration import Identity

pytestmark = pytest.mark.anyio


async def test_a_job_that_was_claimed_without_its_nodes_knowing_is_given_back_and_no_other(
    world: World, tmp_path: Path
) -> None:
    node = await world.node()
    held, ended, lost = [await world.submit() for _ in range(3)]
    claims = [await node.take() for _ in (held, ended, lost)]
    attempts = Attempts()
    begun = [Attempt(claim, safe_until=1e9) for claim in claims[:2]]
    for attempt in begun:
        attempts.add(attempt)
    attempts.remove(begun[1])  # its end could not be recorded

    with (tmp_path / "lock").open("w") as lock:
        identity = Identity(node.id, node.boot_id, tmp_path, lock)
        told: asyncio.Queue[Moved] = asyncio.Queue()
        heart = Heartbeat(world.db, identity, attempts, every_s=0.05, lease_s=2.0, on_return=told.put_nowait)
        beating = asyncio.create_task(heart.run())
        async with asyncio.timeout(30):
            moved = await told.get()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)

    assert (moved.job_id, moved.state, moved.queue) == (lost.job_id, JobState.QUEUED, "acme/echo")
    given_back = await job_queries.get(world.db, lost.job_id, None)
    assert (given_back.state, [one.outcome for one in given_back.attempts]) == (JobState.QUEUED, ["released"])
    assert await world.rows("SELECT failures, crashes FROM jobs WHERE id = :id", id=lost.job_id) == [
        {"failures": 0, "crashes": 0}
    ]
    for job in (held, ended):
        assert (await job_queries.get(world.db, job.job_id, None)).state is JobState.RUNNING
    assert not begun[0].stopped.is_set()
    attempts.remove(begun[0])
