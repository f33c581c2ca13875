"""Warm runners that the tests of a module share: a pool of ranks takes seconds to start."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from worker_node.distributed import DistributedRunner, RankLog

TOOLBOX = "tests.distributed.workers:Toolbox"
# One thread a rank: the machines that run tests have few cores.
ENV = {"OMP_NUM_THREADS": "1"}
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
async def single(anyio_backend: str) -> AsyncIterator[DistributedRunner]:
    """A warm Toolbox of one rank."""
    runner = DistributedRunner(TOOLBOX, 1, env=ENV)
    await runner.start(colour="red")
    yield runner
    await runner.stop()


class LogBook:
    """What ranks have logged; waits for lines to come."""

    def __init__(self) -> None:
        self.seen: set[RankLog] = set()
        self._more = asyncio.Event()

    def add(self, log: RankLog) -> None:
        self.seen.add(log)
        self._more.set()

    async def holds(self, expected: set[RankLog]) -> None:
        while not expected <= self.seen:
            self._more.clear()
            await self._more.wait()


@pytest.fixture(scope="module")
def logs() -> LogBook:
    """What the ranks of ``pair`` log."""
    return LogBook()


@pytest.fixture(scope="module")
async def pair(anyio_backend: str, logs: LogBook) -> AsyncIterator[DistributedRunner]:
    """A warm Toolbox of two ranks."""
    runner = DistributedRunner(TOOLBOX, 2, env=ENV, on_log=logs.add, grace_s=0.5)
    await runner.start(colour="red")
    yield runner
    await runner.stop()


@pytest.fixture
def pids() -> Callable[[DistributedRunner], list[int]]:
    """Read the process ids of a runner's ranks."""
    return lambda runner: [rank.pid for rank in runner.status().ranks]


async def ended(pidfd: int) -> None:
    """Wait until the process of a descriptor has ended; one that does not is killed, and the test fails."""
    seen = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, seen.set)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await seen.wait()
    except TimeoutError as error:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        raise AssertionError(f"a process is still there after {PATIENCE_S:g} s") from error
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
