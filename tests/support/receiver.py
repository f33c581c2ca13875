"""A receiver of webhooks on loopback: keeps what it was sent and when, and answers as it was told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass(frozen=True)
class Reply:
    """An answer; without a status there is none, and the connection stays open until the sender gives up."""

    status: int | None
    headers: str = ""
    body: bytes = b"ok"


@dataclass
class Receiver:
    statuses: list[int | Reply] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    address: str = ""
    answer_headers: str = ""
    has_received: asyncio.Event = field(default_factory=asyncio.Event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        except asyncio.IncompleteReadError:  # a sender that was killed
            writer.close()
            return
        method, path, _ = request.split(" ")
        self.received.append(Received(method, path, headers, body, time.monotonic()))
        self.has_received.set()
        reply = self.statuses.pop(0) if self.statuses else 200
        if isinstance(reply, int):
            reply = Reply(reply, self.answer_headers)
        if reply.status is None:
            await reader.read()
        else:
            size = len(reply.body)
            answer = f"HTTP/1.1 {reply.status} X\r\n{reply.headers}content-length: {size}\r\nconnection: close\r\n\r\n"
            writer.write(answer.encode() + reply.body)
            await writer.drain()
        writer.close()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[Receiver]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        async with server:
            yield self


@asynccontextmanager
async def running_receiver(*statuses: int | Reply) -> AsyncIterator[Receiver]:
    async with Receiver(list(statuses)).running() as receiver:
        yield receiver
