"""A receiver of webhooks on loopback: keeps what it was sent and answers with the statuses it was given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    statuses: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    address: str = ""
    answer_headers: str = ""

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
        self.received.append(Received(method, path, headers, body))
        status = self.statuses.pop(0) if self.statuses else 200
        answer = f"HTTP/1.1 {status} X\r\n{self.answer_headers}content-length: 2\r\nconnection: close\r\n\r\nok"
        writer.write(answer.encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def running_receiver(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(statuses))
    server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    receiver.address = f"{host}:{port}"
    async with server:
        yield receiver
