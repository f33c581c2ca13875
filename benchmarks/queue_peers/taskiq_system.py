"""taskiq on a Redis list, with results in Redis; a caller that waits polls each 5 ms, for there is no other way."""

from __future__ import annotations

import time
from collections.abc import Sequence

import redis.asyncio
from taskiq import AsyncTaskiqTask
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.queue_peers.system import Place

ASK_S = 0.005
place = Place()
broker = ListQueueBroker(place.redis_url, socket_timeout=None).with_result_backend(
    RedisAsyncResultBackend(place.results_url)
)


@broker.task(task_name="noop")
async def noop() -> float:
    """Tell when it was entered."""
    return time.time()


class Taskiq:
    """The caller."""

    async def open(self) -> None:
        await broker.startup()
        self._redis = redis.asyncio.Redis.from_url(place.results_url)

    async def submit(self) -> AsyncTaskiqTask[float]:
        return await noop.kiq()

    async def finished(self) -> int:
        return int(await self._redis.dbsize())

    async def entries(self, jobs: Sequence[AsyncTaskiqTask[float]]) -> list[float]:
        return [(await job.get_result()).return_value for job in jobs]

    async def wait(self, job: AsyncTaskiqTask[float]) -> None:
        await job.wait_result(check_interval=ASK_S, timeout=30)


def make() -> Taskiq:
    """Make the caller."""
    return Taskiq()
