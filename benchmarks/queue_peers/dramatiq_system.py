"""dramatiq on Redis with its Redis results, one process; a caller that waits blocks on the result's list."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.queue_peers.system import Place

WAIT_MS = 30_000
place = Place()
backend = RedisBackend(url=place.results_url)
broker = RedisBroker(url=place.redis_url)
broker.add_middleware(Results(backend=backend, store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> float:
    """Tell when it was entered."""
    return time.time()


class Dramatiq:
    """The caller."""

    async def open(self) -> None:
        self._redis = redis.Redis.from_url(place.results_url)

    async def submit(self) -> Any:
        return noop.send()

    async def finished(self) -> int:
        return int(self._redis.dbsize())

    async def entries(self, jobs: Sequence[Any]) -> list[float]:
        return [job.get_result(backend=backend, block=True, timeout=WAIT_MS) for job in jobs]

    async def wait(self, job: Any) -> None:
        job.get_result(backend=backend, block=True, timeout=WAIT_MS)


def make() -> Dramatiq:
    """Make the caller."""
    return Dramatiq()
