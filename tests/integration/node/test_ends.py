"""How a node hears that the jobs it waits for have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stoker import apps, jobs
from stoker.bus import Bus
from tests.support.job_world import manifest
from tests.support.nodes import Desk
from worker_node.ends import Ends

pytestmark = pytest.mark.anyio

NOT_IN_THIS_TEST_S = 3600.0
NOWHERE = "redis://127.0.0.1:1"


@asynccontextmanager
async def listening(desk: Desk, redis_url: str, look_s: float) -> AsyncIterator[tuple[Ends, Bus]]:
    bus = Bus(redis_url)
    ends = Ends(desk.db, bus, look_s)
    run = asyncio.create_task(ends.run())
    try:
        async with asyncio.timeout(30):
            yield ends, bus
    finally:
        run.cancel()
        await asyncio.wait([run])
        await bus.close()


async def test_an_end_is_heard_through_redis(desk: Desk, redis_url: str) -> None:
    await apps.publish(desk.db, manifest("tests/nobody"))
    job_id = await desk.submit("tests/nobody", ring=False)

    async with listening(desk, redis_url, NOT_IN_THIS_TEST_S) as (ends, bus):
        both = asyncio.gather(ends.of(job_id), ends.of(job_id))
        ended = await jobs.request_cancel(desk.db, job_id, None)
        while not both.done():  # the first may come before they listen
            await bus.wake(job_id, ended.seq)
        await both


async def test_an_end_is_seen_without_redis_at_the_next_look(desk: Desk) -> None:
    await apps.publish(desk.db, manifest("tests/nobody"))
    job_id = await desk.submit("tests/nobody", ring=False)

    async with listening(desk, NOWHERE, 0.05) as (ends, _):
        wait = asyncio.create_task(ends.of(job_id))
        await jobs.request_cancel(desk.db, job_id, None)
        await wait


async def test_what_has_ended_before_is_no_wait(desk: Desk, redis_url: str) -> None:
    await apps.publish(desk.db, manifest("tests/nobody"))
    job_id = await desk.submit("tests/nobody", ring=False)
    await jobs.request_cancel(desk.db, job_id, None)

    async with listening(desk, redis_url, NOT_IN_THIS_TEST_S) as (ends, _):
        await ends.of(job_id)
