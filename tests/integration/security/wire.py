"""Requests as the bytes that they are, over a socket: no client puts right what is wrong on purpose."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 15.0


@dataclass(frozen=True)
class Answer:
    """``rest`` is what came after it on the same connection: of a request that was hidden in the first, its answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    rest: bytes = b""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def told(self) -> str:
        """All that its reader learns."""
        return f"{self.headers}{self.body.decode(errors='replace')}{self.rest.decode(errors='replace')}"


async def exchange(address: tuple[str, int], request: bytes | Iterable[bytes], *, ends: bool = False) -> Answer | None:
    """Send it, and read until the other side closes; None: it closed without a word. ``ends``: so do we, once sent."""
    loop, received = asyncio.get_running_loop(), bytearray()
    # A plain socket: asyncio's streams throw an answer away that came before their sending failed.
    async with asyncio.timeout(PATIENCE_S):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            with suppress(OSError):  # it may have heard enough
                for piece in [request] if isinstance(request, bytes) else request:
                    await loop.sock_sendall(connection, piece)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while chunk := await loop.sock_recv(connection, 65536):
                    received += chunk
    return _parse(bytes(received)) if received else None


def _parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    known = dict(headers)
    if known.get("transfer-encoding") == "chunked":
        body, rest = _unchunked(body)
    else:
        size = int(known.get("content-length", len(body)))
        body, rest = body[:size], body[size:]
    return Answer(int(first.split(" ")[1]), headers, body, rest)


def _unchunked(body: bytes) -> tuple[bytes, bytes]:
    whole = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return bytes(whole), body.removeprefix(b"\r\n")
        whole += body[:length]
        body = body[length + 2 :]
    return bytes(whole), b""
