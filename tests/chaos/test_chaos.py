"""The short chaos: every crash point once, then a few faults; the long one is ``./run chaos``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from stoker.crash_points import Point
from stoker.local import place
from tests.chaos import checker, evidence
from tests.chaos.client import TENANTS, Clients
from tests.chaos.crashes import die_everywhere
from tests.chaos.faults import KINDS, Chaos
from tests.chaos.wishes import ODD, SHORT, wishes
from tests.chaos.world import MIXED, RANKED, World
from tests.conftest import scratch_folder

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
SETTLES_S = 60.0


@pytest.fixture(scope="module")
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    folder = scratch_folder("chaos")
    async with World(folder, lease_s=2.0, apps={"node-1": (MIXED,), "node-2": (MIXED, RANKED)}) as world:
        yield world
    if not request.session.testsfailed:  # else the logs tell why, until the next run
        place.discard(folder)


@pytest.fixture(scope="module")
async def clients(world: World) -> AsyncIterator[Clients]:
    async with Clients.open(world) as clients:
        yield clients


async def test_a_part_may_die_at_any_of_its_crash_points(world: World, clients: Clients) -> None:
    wanted = wishes(4, "odd", ODD, TENANTS)

    await asyncio.gather(*(die_everywhere(world, clients, role, wanted) for role in ("api", "control", "node-1")))

    reached = {said["point"] for _, said in evidence.lines(world.folder / "log") if "point" in said}
    assert reached == {point.value for point in Point}
    await all_is_well(world, clients)


async def test_faults_lose_no_job_and_give_none_two_results(world: World, clients: Clients) -> None:
    enough = asyncio.Event()
    # Ranks are slow to start, so that what has them is spared but once.
    kinds = [
        kind if "node-1" not in kind.targets or kind.name == "rank killed" else replace(kind, targets=("node-1",))
        for kind in KINDS
        if kind.name in FEW
    ]
    chaos = Chaos(world, seed=7, every_s=0.5, kinds=kinds)

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        group.create_task(clients.want(wishes(7, "few", SHORT, TENANTS), rate=8, seed=7, until=enough))
        await chaos.run(enough, faults=len(FEW))
        enough.set()

    assert chaos.done.keys() == FEW
    await all_is_well(world, clients)
    await world.stop()
    assert world.left == []


FEW = {
    "node killed", "node stopped while another takes its job", "rank killed", "FLUSHALL", "Valkey killed",
    "Postgres restarted, immediately", "Postgres swallowed by the network", "connections reset",
}  # fmt: skip


async def all_is_well(world: World, clients: Clients) -> None:
    """Nothing is open after a while, and no rule of the checker is broken."""
    still = await evidence.settled(world, SETTLES_S)
    await clients.settle(SETTLES_S)
    findings = checker.check(await evidence.gather(world, clients))
    assert not any(still.values()), still
    assert checker.broken(findings) == [], checker.table(findings)
