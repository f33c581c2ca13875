"""Crashes: each part dies at each of its crash points, one after another, of what clients want from it.

A part that died is started again with its next point armed, so that what it died of is mended by one that will die,
too, and by the other node. What reaches a point is the clients' doing; the few points that those never lead to have a
cause here.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import psycopg

from stoker.crash_points import CrashAt, Point
from tests.chaos.client import Clients
from tests.chaos.wishes import Wish
from tests.chaos.world import World

DIES_WITHIN_S = 60.0
BURST, BURST_EVERY_S, MOST_WAITING = 4, 0.3, 12
LOOK_S = 0.05
LONG_S, CANCELLED_AFTER_S = 60.0, 6.0
HELD = """
SELECT l.job_id FROM job_leases l JOIN jobs j ON j.id = l.job_id
WHERE j.tags[1] LIKE 'long-%%' AND j.cancel_requested_at IS NULL AND l.node_id = %(node)s LIMIT 1
"""
EXPIRE = "UPDATE job_leases SET expires_at = stoker_now() WHERE job_id = %(job_id)s RETURNING job_id"
# So that on a slow machine, too, it is the new boot that takes back what the former one held.
SPARE = "UPDATE job_leases SET expires_at = expires_at + interval '1 minute' WHERE node_id = %(node)s RETURNING job_id"
LONG = Wish(
    op="", app="chaos/mixed", endpoint="/", tenant=0, seconds=LONG_S, writes=True, fails=False, has_webhook=True,
    key="",
    is_posted_twice=False, priority=0, delay_s=None, start_timeout_s=None, cancel_after_s=CANCELLED_AFTER_S,
    is_cancelled_in_sql=False, is_followed=True,
)  # fmt: skip


async def die_everywhere(world: World, clients: Clients, role: str, wanted: Iterator[Wish]) -> None:
    """Have ``role`` die at every point of its part. It lives when this returns."""
    part = role.partition("-")[0]
    for point in [point for point in Point if point.part == part]:
        if point in BEFORE:
            await BEFORE[point](world, clients, role)
        if not world.members[role].is_dead():
            await world.kill(role)
        if await world.start(role, crash_at=CrashAt(point)) and point in CAUSES:
            await CAUSES[point](world, clients, role)
        deadline = time.monotonic() + DIES_WITHIN_S
        while not await world.see_end(role, within_s=BURST_EVERY_S):
            assert time.monotonic() < deadline, f"{point} was never reached: CAUSES needs what leads there"
            for wish in itertools.islice(wanted, BURST if clients.waiting < MOST_WAITING else 0):
                clients.begin(clients.fulfil(wish), wish.op)
    assert await world.start(role)


async def long_job(world: World, clients: Clients, node: str) -> str:
    """A job that runs on ``node`` and will for a while; its id."""
    async with asyncio.timeout(DIES_WITHIN_S):
        while True:
            clients.number += 1
            for copy in range(4):  # the other node takes some
                op = f"long-{clients.number}-{copy}"
                clients.begin(clients.fulfil(replace(LONG, op=op, key=op)), op)
            for _ in range(round(CANCELLED_AFTER_S / 2 / LOOK_S)):
                found = await asyncio.to_thread(_in_sql, world.database_url, HELD, node=node)
                if found is not None:
                    return str(found)
                await asyncio.sleep(LOOK_S)


async def _lose_a_lease(world: World, clients: Clients, role: str) -> None:
    job_id = await long_job(world, clients, "node-2")  # the other one may be dying
    await asyncio.to_thread(_in_sql, world.database_url, EXPIRE, job_id=job_id)


async def _drain(world: World, clients: Clients, role: str) -> None:
    await long_job(world, clients, role)
    world.members[role].send(signal.SIGTERM)


async def _die_at_work(world: World, clients: Clients, role: str) -> None:
    await long_job(world, clients, role)
    await world.kill(role)
    await asyncio.to_thread(_in_sql, world.database_url, SPARE, node=role)


Cause = Callable[[World, Clients, str], Awaitable[None]]
BEFORE: dict[Point, Cause] = {Point.NODE_FORMER_BOOT_RELEASED: _die_at_work}
CAUSES: dict[Point, Cause] = {Point.CONTROL_REAPED: _lose_a_lease, Point.NODE_RELEASED: _drain}


def _in_sql(database_url: str, statement: str, **values: object) -> object:
    """The first value of the first row, if there is one."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(statement, values).fetchone()
    return None if row is None else row[0]
