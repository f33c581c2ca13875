"""What a node's heartbeat carries to Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.acting_node import ActingNode
from tests.support.nodes import Desk, eventually
from worker_node.attempt import Attempt, Attempts
from worker_node.engines import Engines
from worker_node.heartbeat import Heartbeat
from worker_node.registration import Identity

pytestmark = pytest.mark.anyio

LEASE_S = 30.0
PROGRESS = "SELECT progress FROM job_heads WHERE job_id = %(job_id)s"


@pytest.fixture
async def attempt(engines_of_a_node: Engines, desk: Desk, tmp_path: Path) -> AsyncIterator[Attempt]:
    """One of a node whose heart beats."""
    node = await ActingNode.start(engines_of_a_node.db, engines_of_a_node.bus, f"tests/{uuid4().hex[:8]}")
    await desk.submit(node.version.app, prompt="x", ring=False)
    attempt = Attempt(await node.claim(), safe_until=1e9)
    attempts = Attempts()
    attempts.add(attempt)
    with (tmp_path / "lock").open("w") as lock:
        identity = Identity(node.node_id, node.boot_id, tmp_path, lock)
        heartbeat = Heartbeat(
            engines_of_a_node.db,
            identity,
            attempts,
            every_s=0.02,
            lease_s=LEASE_S,
            on_return=engines_of_a_node.tell_given_back,
        )
        beating = asyncio.create_task(heartbeat.run())
        yield attempt
        beating.cancel()
    attempts.remove(attempt)


async def test_progress_is_sent_once_and_again_when_there_is_more(desk: Desk, attempt: Attempt) -> None:
    attempt.newest_progress = {"step": 1}
    await _shows(desk, attempt, {"step": 1})
    await _forget_progress(desk, attempt)

    for _ in range(3):
        await _next_beat(desk, attempt)
    assert await _progress(desk, attempt) is None

    attempt.newest_progress = {"step": 2}
    await _shows(desk, attempt, {"step": 2})


async def _progress(desk: Desk, attempt: Attempt) -> dict[str, Any] | None:
    async with desk.db.connect() as connection:
        found = await connection.exec_driver_sql(PROGRESS, {"job_id": attempt.claim.job_id})
        progress: dict[str, Any] | None = found.scalar_one()
        return progress


async def _shows(desk: Desk, attempt: Attempt, expected: dict[str, Any]) -> None:
    async def look() -> bool | None:
        return await _progress(desk, attempt) == expected or None

    await eventually(look, lambda: f"progress {expected}")


async def _forget_progress(desk: Desk, attempt: Attempt) -> None:
    async with desk.db.begin() as connection:
        statement = "UPDATE job_heads SET progress = NULL, progress_at = NULL WHERE job_id = %(job_id)s"
        await connection.exec_driver_sql(statement, {"job_id": attempt.claim.job_id})


async def _next_beat(desk: Desk, attempt: Attempt) -> None:
    async def lease_end() -> Any:
        async with desk.db.connect() as connection:
            statement = "SELECT expires_at FROM job_leases WHERE job_id = %(job_id)s"
            return (await connection.exec_driver_sql(statement, {"job_id": attempt.claim.job_id})).scalar_one()

    before = await lease_end()

    async def later() -> bool | None:
        return await lease_end() > before or None

    await eventually(later, lambda: "a heartbeat")
