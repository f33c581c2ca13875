"""The doorbell on a real Valkey: bells that Celery understands, never too many, and no harm without Redis."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from stoker import queue
from stoker.local.engines import Engines
from stoker.queue import ENOUGH_BELLS, WAKE_TASK, Doorbell, queue_name
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
    doorbell.close()


async def test_bells_that_nobody_answers_do_not_pile_up(engines: Engines) -> None:
    app, doorbell = f"acme/{uuid4().hex}", Doorbell(engines.redis_url)

    for _ in range(ENOUGH_BELLS * 3):
        doorbell.ring(app)
    doorbell.close()

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
    doorbell.close()


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
            async with asyncio.timeout(PATIENCE_S):
                while doorbell._reachable:  # noqa: ASYNC110 - a thread says so
                    await asyncio.sleep(0.01)
            relay.mend()

            doorbell.ring(app)

            assert await redis.brpop([queue_name(app)], timeout=5) is not None
        doorbell.close()


def test_ringing_does_not_wait_for_a_redis_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "SOCKET_TIMEOUT_S", PATIENCE_S)  # whoever waited for an answer would do so for that long
    with socket.create_server(("127.0.0.1", 0)) as silent:
        doorbell = Doorbell(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        ringing = threading.Thread(target=doorbell.ring, args=("acme/echo",), daemon=True)
        ringing.start()
        connection, _ = silent.accept()
        ringing.join(PATIENCE_S / 2)
        has_rung = not ringing.is_alive()
    connection.close()
    doorbell.close()

    assert has_rung, "it waits for what Redis says"


def test_ringing_raises_nothing_and_ends_without_redis() -> None:
    doorbell = Doorbell("redis://127.0.0.1:1/0")

    for _ in range(5000):
        doorbell.ring("acme/echo")
    doorbell.close()
