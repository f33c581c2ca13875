"""Rates: how often a tenant may ask. One count over all replicas, in Redis; without Redis each replica counts alone.

A tenant's requests drain at its rate, and as many may come at once as it has in a second. Who has no limit is not
counted and costs nothing. ``api.auth`` asks for each request that carries a key.
"""

from __future__ import annotations

import asyncio
import math
import time
from uuid import UUID

from stoker.errors import RateLimited
from stoker.keys import Caller
from stoker.redis_link import RedisLink

KEY = "stoker:rate:{tenant_id}"
ASK_S = 0.1
"""Of Redis. A request is not slowed for longer, and then not at all for a second: the replica counts alone."""
MOST_TENANTS = 10_000

# The generic cell rate algorithm: the time at which all that came before has drained is one number a tenant. In
# microseconds, which a Lua number holds exactly.
SPEND = """
local time = redis.call('TIME')
local now, step, most = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local drained = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local wait = drained + step - most - now
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', drained + step), 'PX', math.ceil((drained + step - now) / 1000))
return 0
"""


class Rates:
    """One for each process."""

    def __init__(self, redis_url: str) -> None:
        self._link = RedisLink(redis_url, loses="each replica counts tenants' requests by itself")
        self._spend = self._link.redis.register_script(SPEND)
        self._drained: dict[UUID, float] = {}

    async def spend(self, caller: Caller) -> None:
        """Count a request of the caller's tenant.

        Raises:
            RateLimited: it has asked too often; it may again after the error's ``retry_after_s``.
        """
        rate = caller.max_requests_per_s
        if rate is None:
            return
        step_s = 1.0 / rate
        most_s = max(1.0, step_s)
        wait_s = await self._link.ask(lambda: self._ask_redis(caller.tenant_id, step_s, most_s))
        if wait_s is None:
            wait_s = self._count_alone(caller.tenant_id, step_s, most_s)
        if wait_s > 0:
            raise RateLimited(f"tenant {caller.tenant_name!r} may ask {rate:g} times a second", retry_after_s=wait_s)

    async def close(self) -> None:
        await self._link.close()

    async def _ask_redis(self, tenant_id: UUID, step_s: float, most_s: float) -> float:
        numbers = [math.ceil(step_s * 1e6), math.ceil(most_s * 1e6)]
        async with asyncio.timeout(ASK_S):
            return int(await self._spend(keys=[KEY.format(tenant_id=tenant_id)], args=numbers)) / 1e6

    def _count_alone(self, tenant_id: UUID, step_s: float, most_s: float) -> float:
        now = time.monotonic()
        drained = max(self._drained.get(tenant_id, 0.0), now)
        wait_s = drained + step_s - most_s - now
        if wait_s <= 0:
            if len(self._drained) >= MOST_TENANTS:
                self._drained.clear()
            self._drained[tenant_id] = drained + step_s
        return wait_s
