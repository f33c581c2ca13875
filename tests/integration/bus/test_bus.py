"""The bus on a real Valkey: what it carries, what it keeps, and how it lives without Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from stoker import redis_link
from stoker.bus import (
    KEEP_ENDED_S,
    KEEP_PROGRESS,
    MAX_KEPT_BYTES,
    MAX_PREVIEW_BYTES,
    PREVIEW_HASH,
    PROGRESS_STREAM,
    Bus,
)
from stoker.events import Event, EventId, EventKind
from stoker.local.engines import Engines
from stoker.redis_link import RedisLink
from tests.support.patience import waiting_for

pytestmark = pytest.mark.anyio


async def test_a_connection_that_was_closed_meanwhile_is_a_redis_that_is_away(engines: Engines) -> None:
    link = RedisLink(engines.redis_url, loses="nothing")

    async def closed() -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    assert await link.ask(closed) is None
    assert await link.is_reachable()
    await link.close()


async def test_many_who_ask_at_the_same_time_are_all_answered(engines: Engines) -> None:
    link = RedisLink(engines.redis_url, loses="nothing")

    answers = await asyncio.gather(*(link.ask(link.redis.ping) for _ in range(500)))

    assert answers == [True] * 500
    await link.close()


async def test_who_waits_too_long_for_a_turn_gives_up_and_redis_is_not_away(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "AT_ONCE", 1)
    monkeypatch.setattr(redis_link, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(redis_link, "TURN_S", 0.01)
    link = RedisLink(engines.redis_url, loses="nothing")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        begun.set()
        await go_on.wait()
        return "answered"

    slow = asyncio.create_task(link.ask(wait))
    await begun.wait()
    async with waiting_for("a turn that does not come", 20):
        late = await link.ask(link.redis.ping)
    go_on.set()

    assert late is None
    assert await slow == "answered"
    assert await link.ask(link.redis.ping) is True
    await link.close()


@pytest.fixture
async def bus(engines: Engines) -> AsyncIterator[Bus]:
    made = Bus(engines.redis_url)
    yield made
    await made.close()


def event(n: int, kind: EventKind = EventKind.PROGRESS, attempt: int = 1, **data: Any) -> Event:
    return Event(EventId(2, attempt, n), kind, data, datetime.now(UTC))


async def test_wake_ups_and_progress_reach_who_listens(bus: Bus) -> None:
    job_id = uuid4()
    async with bus.subscribe() as subscription:
        await subscription.add(f"stoker:job:{job_id}")
        messages = aiter(subscription)
        assert (await anext(messages)).data is None
        await bus.wake(job_id, 7)
        await bus.progress(job_id, event(1, step=3))
        wake, progress = await anext(messages), await anext(messages)

    assert wake.data == {"seq": 7}
    assert progress.data["event"]["id"] == "2.1.1"
    assert progress.data["event"]["data"] == {"step": 3}


async def test_the_newest_progress_of_an_attempt_is_kept_for_a_while(bus: Bus, engines: Engines) -> None:
    job_id = uuid4()
    for n in range(1, 5):
        await bus.progress(job_id, event(n, step=n))
    await bus.progress(job_id, event(5, EventKind.PREVIEW, rank=0, image="old"))
    await bus.progress(job_id, event(6, EventKind.PREVIEW, rank=1, image="one"))
    await bus.progress(job_id, event(7, EventKind.PREVIEW, rank=0, image="new"))

    newest = await bus.newest_progress(job_id, 1)

    assert [(found.id.n, found.kind) for found in newest] == [
        (4, EventKind.PROGRESS),
        (6, EventKind.PREVIEW),
        (7, EventKind.PREVIEW),
    ]
    assert await bus.newest_progress(job_id, 2) == []
    async with Redis.from_url(engines.redis_url) as redis:
        assert await redis.ttl(PROGRESS_STREAM.format(job_id=job_id)) > 0
        assert await redis.ttl(PREVIEW_HASH.format(job_id=job_id)) > 0


async def test_progress_takes_no_more_room_than_its_cap(bus: Bus, engines: Engines) -> None:
    job_id = uuid4()
    for n in range(1, 1001):
        await bus.progress(job_id, event(n))

    async with Redis.from_url(engines.redis_url) as redis:
        kept = await redis.xlen(PROGRESS_STREAM.format(job_id=job_id))
    assert kept == KEEP_PROGRESS
    missed = await bus.progress_after(job_id, EventId(2, 1, 990))
    assert [found.id.n for found in missed] == list(range(991, 1001))


async def test_a_job_that_has_ended_keeps_its_newest_progress_alone_and_briefly(bus: Bus, engines: Engines) -> None:
    job_id = uuid4()
    for n in range(1, 101):
        await bus.progress(job_id, event(n, step=n))
    await bus.progress(job_id, event(101, EventKind.PREVIEW, rank=0, image="new"))

    await bus.wake(job_id, 3, is_final=True)

    assert [found.id.n for found in await bus.progress_after(job_id, EventId(0))] == [100, 101]
    async with Redis.from_url(engines.redis_url) as redis:
        for key in (PROGRESS_STREAM, PREVIEW_HASH):
            assert 0 < await redis.ttl(key.format(job_id=job_id)) <= KEEP_ENDED_S


async def test_progress_may_have_a_redis_of_its_own(engines: Engines) -> None:
    job_id = uuid4()
    other = f"{engines.redis_url.rpartition('/')[0]}/1"
    bus = Bus(engines.redis_url, other)

    await bus.progress(job_id, event(1))
    await bus.progress(job_id, event(2, EventKind.PREVIEW, rank=0))

    assert [found.id.n for found in await bus.newest_progress(job_id, 1)] == [1, 2]
    keys = (PROGRESS_STREAM.format(job_id=job_id), PREVIEW_HASH.format(job_id=job_id))
    async with Redis.from_url(engines.redis_url) as main, Redis.from_url(other) as own:
        assert [await main.exists(*keys), await own.exists(*keys)] == [0, 2]
    await bus.close()


async def test_losing_the_redis_of_progress_loses_no_wake_up(engines: Engines) -> None:
    job_id, bus = uuid4(), Bus(engines.redis_url, "redis://127.0.0.1:1/0")
    async with bus.subscribe() as subscription:
        await subscription.add(f"stoker:job:{job_id}")
        messages = aiter(subscription)
        await anext(messages)
        assert await bus.progress(job_id, event(1)) is False
        await bus.wake(job_id, 7, is_final=True)
        heard = await anext(messages)

    assert heard.data == {"seq": 7}
    await bus.close()


async def test_what_was_missed_comes_in_order_and_once(bus: Bus) -> None:
    job_id = uuid4()
    first, second = event(1), event(2)
    later = Event(EventId(5, 1, 3), EventKind.PROGRESS, {}, datetime.now(UTC))
    preview = Event(EventId(5, 1, 4), EventKind.PREVIEW, {"rank": 0}, datetime.now(UTC))
    for said in (first, second, second, preview, later):
        assert await bus.progress(job_id, said)

    assert await bus.progress_after(job_id, EventId(2, 1, 1)) == [second, later, preview]
    assert await bus.progress_after(job_id, later.id) == [preview]
    assert await bus.progress_after(job_id, EventId(10**18, 10**18, 10**18)) == []
    assert await bus.progress_after(job_id, EventId(2, 10**18, 10**18)) == [later, preview]


async def test_what_an_attempt_says_after_another_has_spoken_is_not_kept(bus: Bus) -> None:
    job_id = uuid4()
    spoken = Event(EventId(4, 2, 1), EventKind.PROGRESS, {}, datetime.now(UTC))
    await bus.progress(job_id, spoken)

    await bus.progress(job_id, event(9, attempt=1))

    assert await bus.progress_after(job_id, EventId(0)) == [spoken]


async def test_large_progress_is_heard_and_not_kept(bus: Bus) -> None:
    job_id, large = uuid4(), event(1, text="x" * MAX_KEPT_BYTES)
    async with bus.subscribe() as subscription:
        await subscription.add(f"stoker:job:{job_id}")
        messages = aiter(subscription)
        await anext(messages)
        await bus.progress(job_id, large)
        heard = await anext(messages)

    assert heard.data["event"]["id"] == str(large.id)
    assert await bus.progress_after(job_id, EventId(0)) == []


async def test_a_preview_over_its_limit_is_not_sent(bus: Bus) -> None:
    job_id = uuid4()

    await bus.progress(job_id, event(1, EventKind.PREVIEW, rank=0, image="x" * MAX_PREVIEW_BYTES))

    assert await bus.newest_progress(job_id, 1) == []


async def test_nothing_is_raised_while_redis_is_away() -> None:
    bus = Bus("redis://127.0.0.1:1/0")

    await bus.wake(uuid4(), 1)
    await bus.progress(uuid4(), event(1))
    await bus.nudge_cancel("node", uuid4())

    assert await bus.newest_progress(uuid4(), 1) == []
    assert await bus.is_reachable() is False
    await bus.close()


async def test_a_subscription_that_was_cut_listens_again_and_says_that_something_may_be_missing(
    bus: Bus, engines: Engines
) -> None:
    job_id = uuid4()
    async with bus.subscribe() as subscription:
        listening = await subscription.add(f"stoker:job:{job_id}")
        messages = aiter(subscription)
        await anext(messages)
        async with Redis.from_url(engines.redis_url) as redis:
            await redis.client_kill_filter(_type="pubsub")
        again = await anext(messages)
        await bus.wake(job_id, 7)
        wake = await anext(messages)
        heard = listening.is_set()

    assert again.data is None
    assert wake.data == {"seq": 7}
    assert heard


async def test_a_subscription_outlives_a_transport_that_was_closed_meanwhile(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closed(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    job_id = uuid4()
    async with bus.subscribe() as subscription:
        messages = aiter(subscription)
        await anext(messages)
        monkeypatch.setattr(PubSub, "subscribe", closed)
        await subscription.add(f"stoker:job:{job_id}")
        monkeypatch.setattr(PubSub, "get_message", closed)
        again = await anext(messages)
        await bus.wake(job_id, 7)
        wake = await anext(messages)

    assert [again.data, wake.data] == [None, {"seq": 7}]


async def test_a_node_is_told_of_cancels_also_after_its_connection_was_cut(bus: Bus, engines: Engines) -> None:
    node_id, first, second = f"node-{uuid4().hex}", uuid4(), uuid4()
    cancels = bus.listen_cancels(node_id)

    async def told(job_id: UUID) -> None:
        heard = None
        while heard != job_id:  # those before it may have been said twice
            waiting = asyncio.ensure_future(anext(cancels))
            while not waiting.done():
                await bus.nudge_cancel(node_id, job_id)  # Redis counts a connection that it has killed for a while
            heard = await waiting

    async with Redis.from_url(engines.redis_url) as redis:
        await told(first)
        await redis.client_kill_filter(_type="pubsub")
        await told(second)
    await cancels.aclose()
