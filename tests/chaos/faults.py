"""Faults: what can be done to a world, each healed when it returns. Which, when and to whom comes from the seed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import psycopg
import redis

from stoker.crash_points import CrashAt, Point
from tests.chaos.world import NODES, World

Fault = Callable[[World, str, random.Random], Awaitable[None]]
DIES_WITHIN_S = 20.0
LOOK_S = 0.05
HAS_WORK = """
SELECT 1 FROM job_leases l JOIN jobs j ON j.id = l.job_id
WHERE l.node_id = %(node)s AND j.endpoint = '/' AND (j.input ->> 'seconds')::float8 > 0.1
"""
HANG_UP = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stoker-node ' || %(node)s"
EXPIRE = "UPDATE job_leases SET expires_at = stoker_now() WHERE node_id = %(node)s RETURNING job_id"


@dataclass(frozen=True)
class Kind:
    """``targets`` are what it may be done to, one of them at a time; nothing else is done to that meanwhile."""

    name: str
    targets: tuple[str, ...]
    do: Fault


KINDS: list[Kind] = []


def kind(name: str, *targets: str) -> Callable[[Fault], Fault]:
    def add(do: Fault) -> Fault:
        KINDS.append(Kind(name, targets, do))
        return do

    return add


@kind("node killed", *NODES)
@kind("API killed", "api")
@kind("control loop killed", "control")
async def kill_part(world: World, target: str, chance: random.Random) -> None:
    await world.kill(target)
    await asyncio.sleep(chance.choice([0, 0, 1, 1.5 * world.lease_s]))
    await world.start(target)


@kind("node drained", *NODES)
async def drain(world: World, target: str, chance: random.Random) -> None:
    world.members[target].send(signal.SIGTERM)
    if not await world.see_end(target):
        world.left.append(f"{target}, which was to drain")
        await world.kill(target)
    await world.start(target)


@kind("node stopped past its lease", *NODES)
@kind("control loop stopped", "control")
@kind("API stopped", "api")
async def stop_part(world: World, target: str, chance: random.Random) -> None:
    member = world.members[target]
    member.send(signal.SIGSTOP)
    await asyncio.sleep(world.lease_s * chance.uniform(1.2, 2.0))
    member.send(signal.SIGCONT)


@kind("node stopped while another takes its job", *NODES)
async def rob(world: World, target: str, chance: random.Random) -> None:
    """What it says when it goes on comes while the other is at work, which is when it would do harm."""
    member = world.members[target]
    with suppress(TimeoutError, psycopg.OperationalError):
        async with asyncio.timeout(world.lease_s * 3):
            while not await asyncio.to_thread(_in_sql, world.database_url, HAS_WORK, target):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
            member.send(signal.SIGSTOP)
            # A transaction that it stands still in would hold its app's lock, and the others up, for twelve seconds.
            await asyncio.to_thread(_in_sql, world.database_url, HANG_UP, target)
            while await asyncio.to_thread(_in_sql, world.database_url, EXPIRE, target):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
    await asyncio.sleep(chance.uniform(0, 1))
    member.send(signal.SIGCONT)


@kind("node blinked", *NODES)
async def blink(world: World, target: str, chance: random.Random) -> None:
    """Shorter than its lease: nothing may come of it."""
    world.members[target].send(signal.SIGSTOP)
    await asyncio.sleep(world.lease_s * chance.uniform(0.1, 0.5))
    world.members[target].send(signal.SIGCONT)


@kind("rank killed", *NODES)
async def kill_rank(world: World, target: str, chance: random.Random) -> None:
    _kill_one(world.ranks(target), chance)


@kind("app host killed", *NODES)
async def kill_app_host(world: World, target: str, chance: random.Random) -> None:
    _kill_one(world.app_hosts(target), chance)


@kind("API dead at a crash point", "api")
@kind("control loop dead at a crash point", "control")
@kind("node dead at a crash point", *NODES)
async def crash(world: World, target: str, chance: random.Random) -> None:
    """Start it anew so that it dies at a point of its own; where it does not come there soon, it is killed."""
    part = target.partition("-")[0]
    point = chance.choice([point for point in Point if point.part == part])
    await world.kill(target)
    await world.start(target, crash_at=CrashAt(point, chance.randint(1, 5)))
    if not await world.see_end(target, within_s=DIES_WITHIN_S):
        await world.kill(target)  # later it would die with nobody to start it again
    await world.start(target)


@kind("FLUSHALL", "valkey")
async def flush(world: World, target: str, chance: random.Random) -> None:
    def now() -> None:
        with redis.Redis.from_url(world.redis_url, socket_timeout=5) as client:
            client.flushall()

    await asyncio.to_thread(now)


@kind("Valkey killed", "valkey")
@kind("SeaweedFS killed", "seaweedfs")
async def kill_engine(world: World, target: str, chance: random.Random) -> None:
    os.kill(world.engine_pid(target), signal.SIGKILL)
    await asyncio.sleep(chance.choice([0, 1, 1.5 * world.lease_s]))
    await world.start_engine(target)


@kind("Valkey silent", "valkey")
@kind("SeaweedFS silent", "seaweedfs")
async def stop_engine(world: World, target: str, chance: random.Random) -> None:
    pid = world.engine_pid(target)
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(0.5, 2 * world.lease_s))
    os.kill(pid, signal.SIGCONT)


@kind("Postgres restarted, immediately", "postgres")
async def restart_postgres(world: World, target: str, chance: random.Random) -> None:
    os.kill(world.engine_pid("postgres"), signal.SIGQUIT)
    await asyncio.sleep(chance.choice([0, 0.5, 1.3 * world.lease_s]))
    await world.start_engine("postgres")


@kind("Postgres behind a slow network", *NODES)
async def slow(world: World, target: str, chance: random.Random) -> None:
    relay = world.relays[target]["postgres"]
    relay.delay_s = chance.uniform(0.01, 0.1)
    await asyncio.sleep(world.lease_s)
    relay.delay_s = 0.0


@kind("Postgres swallowed by the network", *NODES)
async def swallow_postgres(world: World, target: str, chance: random.Random) -> None:
    await _silence(world, target, "postgres", chance)


@kind("Redis swallowed by the network", *NODES)
async def swallow_redis(world: World, target: str, chance: random.Random) -> None:
    await _silence(world, target, "valkey", chance)


@kind("connections reset", *NODES)
async def reset(world: World, target: str, chance: random.Random) -> None:
    for _ in range(3):
        for relay in world.relays[target].values():
            relay.reset()
        await asyncio.sleep(chance.uniform(0.05, 0.5))


@kind("Postgres out of reach", *NODES)
async def cut(world: World, target: str, chance: random.Random) -> None:
    relay = world.relays[target]["postgres"]
    await asyncio.to_thread(relay.cut)
    await asyncio.sleep(world.lease_s * chance.uniform(0.2, 2.0))
    await asyncio.to_thread(relay.mend)


async def _silence(world: World, target: str, engine: str, chance: random.Random) -> None:
    relay = world.relays[target][engine]
    relay.silence()
    await asyncio.sleep(world.lease_s * chance.uniform(0.3, 2.0))
    relay.speak()


def _in_sql(database_url: str, statement: str, node: str) -> bool:
    """Whether the statement finds rows."""
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        return bool(connection.execute(statement, {"node": node}).fetchall())


def _kill_one(processes: list[psutil.Process], chance: random.Random) -> None:
    if processes:
        with suppress(psutil.NoSuchProcess):
            chance.choice(sorted(processes, key=lambda each: each.pid)).kill()


@dataclass
class Chaos:
    """Does faults at random moments, each kind as often as another, two at a time at most."""

    world: World
    seed: int
    every_s: float
    kinds: list[Kind] = field(default_factory=lambda: list(KINDS))
    done: Counter[str] = field(default_factory=Counter)

    async def run(
        self, until: asyncio.Event, *, faults: int | None = None, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """Until ``until``, or so many; what was begun then is healed."""
        chance = random.Random(f"{self.seed} faults")
        locks = {target: asyncio.Lock() for each in self.kinds for target in each.targets}
        bag: list[Kind] = []
        async with asyncio.TaskGroup() as group:
            under_way = asyncio.Semaphore(2)
            begun = 0
            while not until.is_set() and begun != faults:
                begun += 1
                bag = bag or chance.sample(self.kinds, len(self.kinds))
                each = bag.pop()
                target, own = chance.choice(each.targets), random.Random(chance.random())
                await under_way.acquire()
                task = group.create_task(self._one(each, target, own, locks[target], tell))
                task.add_done_callback(lambda _: under_way.release())
                with suppress(TimeoutError):
                    async with asyncio.timeout(chance.expovariate(1 / self.every_s)):
                        await until.wait()

    async def _one(
        self, each: Kind, target: str, chance: random.Random, lock: asyncio.Lock, tell: Callable[[str], None]
    ) -> None:
        async with lock:
            tell(f"{each.name} ({target})")
            await each.do(self.world, target, chance)
            self.done[each.name] += 1
