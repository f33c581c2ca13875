"""Measures of any ``System``. They return samples and judge nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.queue_peers.system import System

LOOK_S = 0.02
"""How often the store is asked how many results it holds: none of the peers tells by itself."""
LIMIT_S = 150.0


async def paced(system: System, count: int, rate: float) -> dict[str, list[float]]:
    """Submit at a steady pace without waiting for results: ms from each call to its function, and of the call."""
    before = await system.finished()
    began, calls, jobs, submits = time.monotonic(), list[float](), list[Any](), list[float]()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        calls.append(time.time())
        clock = time.perf_counter()
        jobs.append(await system.submit())
        submits.append((time.perf_counter() - clock) * 1000)
    await all_finished(system, before + count)
    entered = await system.entries(jobs)
    return {"entry": [(at - call) * 1000 for at, call in zip(entered, calls, strict=True)], "submit": submits}


async def followed(system: System, count: int, rate: float) -> list[float]:
    """Submit at that pace at most, each job when the last one's result is there: ms from the call to the result."""
    taken = []
    due = time.monotonic()
    for _ in range(count):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due = max(due + 1 / rate, time.monotonic())
        began = time.perf_counter()
        await system.wait(await system.submit())
        taken.append((time.perf_counter() - began) * 1000)
    return taken


async def end_to_end(system: System, count: int, clients: int) -> dict[str, float]:
    """Jobs a second from the first call until the last result is stored; the calls' own rate beside it."""
    before = await system.finished()
    began = time.monotonic()
    await _by_clients(system.submit, count, clients)
    submitted = time.monotonic()
    await all_finished(system, before + count)
    return {"jobs": count / (time.monotonic() - began), "submits": count / (submitted - began)}


async def burst(system: System, count: int, clients: int) -> dict[str, Any]:
    """Submit as fast as it goes: calls a second, and ms of each."""
    began = time.monotonic()
    taken = await _by_clients(system.submit, count, clients)
    return {"rate": count / (time.monotonic() - began), "calls": taken}


async def all_finished(system: System, count: int) -> None:
    """Wait for so many results.

    Raises:
        TimeoutError: they are not there in time.
    """
    async with asyncio.timeout(LIMIT_S):
        while await system.finished() < count:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(LOOK_S)


async def _by_clients(act: Callable[[], Awaitable[Any]], count: int, clients: int) -> list[float]:
    taken: list[float] = []
    numbers = iter(range(count))

    async def client() -> None:
        for _ in numbers:
            began = time.perf_counter()
            await act()
            taken.append((time.perf_counter() - began) * 1000)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return taken
