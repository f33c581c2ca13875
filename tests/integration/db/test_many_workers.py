"""Many nodes on one queue: each job once, no cap passed, nothing left over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from stoker import jobs, lanes
from stoker.job_values import Claim
from tests.support.job_world import CRASH, DONE, RETRYABLE, Node, World, new_world

pytestmark = pytest.mark.anyio

JOBS, CLAIMERS, SUBMITTERS, TENANTS = 1000, 4, 3, 40
CAPS = {number: 1 + number % 2 for number in range(10)}  # of the first tenants; the others have none
SEED = 20261121
WRONG_NOW = "SELECT * FROM v_invariants WHERE rule LIKE 'a lane%' OR rule LIKE '%lease%'"


@dataclass
class Run:
    """The claimers, and what they saw."""

    world: World
    cap_of: dict[UUID, int]
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    claimed: Counter[tuple[UUID, int]] = field(default_factory=Counter)
    running: Counter[UUID] = field(default_factory=Counter)
    crashed_on: dict[UUID, str] = field(default_factory=dict)
    succeeded: int = 0

    @property
    def is_over(self) -> bool:
        return self.succeeded == JOBS

    async def submit(self, share: range, tenants: list[UUID]) -> None:
        for _ in share:
            tenant, priority = self.chance.choice(tenants), self.chance.choice([3, 5])
            await self.world.submit(tenant_id=tenant, priority=priority, max_attempts=2)

    async def work(self, node: Node) -> None:
        claim = None
        while not self.is_over:
            claim = claim or await node.claim()
            if claim is None:
                await asyncio.sleep(0.005)  # an idle node looks again
                continue
            self.note(node, claim)
            claim = await self.finish(node, claim)

    def note(self, node: Node, claim: Claim) -> None:
        self.claimed[claim.job_id, claim.attempt] += 1
        self.running[claim.tenant_id] += 1
        assert self.running[claim.tenant_id] <= self.cap_of.get(claim.tenant_id, JOBS), "a cap was passed"
        assert self.crashed_on.pop(claim.job_id, None) != node.id, "a job came back to the node that it avoids"

    async def finish(self, node: Node, claim: Claim) -> Claim | None:
        outcome: jobs.Outcome = DONE
        if claim.attempt == 1 and self.chance.random() < 0.06:
            outcome = self.chance.choice([CRASH, RETRYABLE])
        if outcome is CRASH:
            self.crashed_on[claim.job_id] = node.id
        self.running[claim.tenant_id] -= 1  # before the commit that frees it
        finished = await jobs.finish(self.world.db, claim.lease, outcome, jobs.Usage(1.0, 1), then=node.request)
        assert finished.applied
        self.succeeded += outcome is DONE
        return finished.next

    async def tick(self, nodes: list[Node]) -> None:
        while not self.is_over:
            for node in nodes:
                await node.renew()
            await jobs.promote_due(self.world.db)
            await lanes.tend(self.world.db)
            assert await self.world.rows(WRONG_NOW) == []
            await asyncio.sleep(0.05)  # the tick's pace


@pytest.fixture
async def moving_world(database_url: str) -> AsyncIterator[World]:
    async with new_world(database_url, pool_size=8, frozen=False) as world:
        yield world


async def test_each_job_succeeds_once_whatever_the_claimers_do(moving_world: World) -> None:
    world = moving_world
    tenants = [await world.tenant(f"t{number}") for number in range(TENANTS)]
    for number, cap in CAPS.items():
        await world.rows("UPDATE tenants SET max_running = :cap WHERE id = :id", cap=cap, id=tenants[number])
    nodes = [await world.node(f"n{number}") for number in range(CLAIMERS)]
    run = Run(world, {tenants[number]: cap for number, cap in CAPS.items()})

    async with asyncio.timeout(150):
        await asyncio.gather(
            *(run.work(node) for node in nodes),
            *(run.submit(range(start, JOBS, SUBMITTERS), tenants) for start in range(SUBMITTERS)),
            run.tick(nodes),
        )

    states = await world.rows("SELECT state, count(*)::int AS n, sum(attempt)::int AS tries FROM jobs GROUP BY state")
    assert states == [{"state": "succeeded", "n": JOBS, "tries": len(run.claimed)}]
    assert set(run.claimed.values()) == {1}
    assert await world.value("SELECT count(*) FROM job_attempts") == len(run.claimed)
    assert await world.value("SELECT count(*) FROM job_leases") == 0
    assert await world.value("SELECT sum(running) FROM queue_lanes") == 0
    assert await world.invariants() == []
