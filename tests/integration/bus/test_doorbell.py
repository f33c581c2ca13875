"""The doorbell on a real Valkey: bells that Celery understands, never too many, and no harm without Redis."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from stoker.local.engines import Engines
from stoker.queue import ENOUGH_BELLS, WAKE_TASK, Doorbell, queue_name
from tests.support.patience import waiting_for
from tests.support.proxy import proxy

pytestmark = pytest.mark.anyio

PATIENCE_S = 20


async def test_a_bell_is_a_celery_message_in_json_that_names_the_app(engines: Engines) -> None:
    app, doorbell = f"acme/{uuid4().hex}", Doorbell(engines.redis_url)

    doorbell.ring(app)

    async with Redis.from_url(engines.redis_url, socket_timeout=10) as redis:
        _, raw = await redis.brpop([queue_name(app)], timeout=5)
    message = json.loads(raw)
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == WAKE_TASK
    assert json.loads(base64.b64decode(message["body"]))[:2] == [[app], {}]
    await doorbell.close()


async def test_bells_that_nobody_answers_do_not_pile_up(engines: Engines) -> None:
    app, doorbell = f"acme/{uuid4().hex}", Doorbell(engines.redis_url)

    for _ in range(ENOUGH_BELLS * 3):
        doorbell.ring(app)
    await doorbell.close()

    async with Redis.from_url(engines.redis_url) as redis:
        assert await redis.llen(queue_name(app)) == ENOUGH_BELLS


async def test_bells_ring_again_after_redis_was_emptied(engines: Engines) -> None:
    app, doorbell = f"acme/{uuid4().hex}", Doorbell(engines.redis_url)
    async with Redis.from_url(engines.redis_url, socket_timeout=10) as redis:
        doorbell.ring(app)
        await redis.brpop([queue_name(app)], timeout=5)
        await redis.flushall()
        await redis.client_kill_filter(_type="normal", skipme=True)

        doorbell.ring(app)
        doorbell.ring(app)

        assert await redis.brpop([queue_name(app)], timeout=5) is not None
    await doorbell.close()


async def test_bells_ring_again_after_redis_was_away(engines: Engines) -> None:
    app, port = f"acme/{uuid4().hex}", urlsplit(engines.redis_url).port or 0
    with proxy(port) as relay:
        doorbell = Doorbell(engines.redis_url.replace(f":{port}", f":{relay.port}"))
        async with Redis.from_url(engines.redis_url, socket_timeout=10) as redis:
            doorbell.ring(app)
            assert await redis.brpop([queue_name(app)], timeout=5) is not None
            relay.cut()
            for _ in range(3):
                doorbell.ring(app)
            async with waiting_for("the bells to be lost", PATIENCE_S):
                await doorbell.rung()
            relay.mend()

            async with waiting_for("a bell", PATIENCE_S):
                doorbell.ring(app)
                while await redis.brpop([queue_name(app)], timeout=1) is None:
                    doorbell.ring(app)  # it leaves a Redis that was away in peace for a moment
        await doorbell.close()


async def test_ringing_does_not_wait_for_a_redis_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        doorbell = Doorbell(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        doorbell.ring("acme/echo")
        connection, _ = await asyncio.to_thread(silent.accept)

        doorbell.ring("acme/echo")
        async with waiting_for("a doorbell to close", PATIENCE_S):
            await doorbell.close()
    connection.close()


async def test_a_bell_that_cannot_be_made_does_not_silence_the_next(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, doorbell = f"acme/{uuid4().hex}", Doorbell(engines.redis_url)
    with monkeypatch.context() as broken:
        broken.setattr(doorbell, "_bell", lambda _app: 1 / 0)
        doorbell.ring(app)
        await doorbell.rung()

    doorbell.ring(app)
    await doorbell.close()

    async with Redis.from_url(engines.redis_url) as redis:
        assert await redis.llen(queue_name(app)) == 1


async def test_ringing_raises_nothing_and_ends_without_redis() -> None:
    doorbell = Doorbell("redis://127.0.0.1:1/0")

    for _ in range(5000):
        doorbell.ring("acme/echo")
    await doorbell.close()
