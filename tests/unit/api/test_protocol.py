"""The protocol where it takes time to see: a head that never comes, and answers that must stay in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from fastapi import FastAPI

from api import problems, protocol
from api.server import Server, bind

pytestmark = pytest.mark.anyio

GOOD = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"
BROKEN = b"GET /slow HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"


class Gate(asyncio.Event):
    """An event that tells when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.has_waiter = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.has_waiter.set()
        return await super().wait()


@asynccontextmanager
async def serving(release: Gate) -> AsyncIterator[tuple[tuple[str, int], Server]]:
    app = FastAPI()
    app.state.stopping = asyncio.Event()
    problems.install(app)

    @app.get("/slow")
    async def slow() -> dict[str, bool]:
        await release.wait()
        return {"slow": True}

    sock = bind("127.0.0.1", 0)
    server = Server(app, sock)
    sock.listen()  # whoever comes before it serves waits
    task = asyncio.create_task(server.serve())
    try:
        yield sock.getsockname(), server
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("begun", [b"", b"GET /slow HT", GOOD[:-2]], ids=["nothing", "a line", "headers"])
async def test_a_connection_whose_head_does_not_come_is_closed(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.05)
    async with serving(Gate()) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(begun)

        assert await reader.read() == b""
        writer.close()


async def test_a_second_head_that_does_not_come_closes_the_connection_too(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Gate()
    release.set()
    async with serving(release) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GOOD)
        assert (await reader.readuntil(b'{"slow":true}')).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr(protocol, "HEAD_S", 0.05)
        writer.write(b"GET")

        assert await reader.read() == b""
        writer.close()


async def test_nothing_closes_the_connection_of_a_request_whose_head_has_come() -> None:
    release = Gate()
    async with serving(release) as (address, server):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GOOD)
        await release.has_waiter.wait()

        [connection] = server.server_state.connections
        assert connection._head_is_due is None
        release.set()
        assert (await reader.readuntil(b'{"slow":true}')).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_what_is_wrong_with_a_second_request_is_not_the_answer_to_the_first() -> None:
    release = Gate()
    async with serving(release) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GOOD + BROKEN)
        await writer.drain()
        release.set()
        answered = await reader.read()
        writer.close()

    assert answered.startswith(b"HTTP/1.1 200 OK")
    assert answered.count(b"HTTP/1.1") == 1


async def test_a_broken_request_after_a_good_one_is_answered() -> None:
    release = Gate()
    release.set()
    async with serving(release) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GOOD)
        await reader.readuntil(b'{"slow":true}')
        writer.write(BROKEN)
        answered = await reader.read()
        writer.close()

    assert answered.startswith(b"HTTP/1.1 400 Bad Request")
    assert b'"detail":"the header host stands there twice"' in answered
