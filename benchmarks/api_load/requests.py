"""Requests over kept connections, without an HTTP library: what they take is the server's time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any, cast

WAIT_S = 30.0


class Kept(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None
        self._received, self._wanted = b"", 0
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int) -> Kept:
        """Connect."""
        _, kept = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return kept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> int:
        """Send it; the status of the answer, when all of that is here."""
        assert self._transport is not None
        self._answer, self._received, self._wanted = asyncio.get_running_loop().create_future(), b"", 0
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """See whether the answer is complete."""
        self._received += data
        if not self._wanted and (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            at = head.index(b"content-length:") + 15
            self._wanted = end + 4 + int(head[at:].split(b"\r\n", 1)[0])
        if self._wanted and len(self._received) >= self._wanted and self._answer is not None:
            self._answer.set_result(int(self._received[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the one who waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the connection was closed"))

    def close(self) -> None:
        """Close it."""
        assert self._transport is not None
        self._transport.close()


def request(method: str, path: str, key: str, body: object = None) -> bytes:
    """Write one."""
    content = b"" if body is None else json.dumps(body).encode()
    told = f"content-type: application/json\r\ncontent-length: {len(content)}\r\n" if content else ""
    return f"{method} {path} HTTP/1.1\r\nhost: api\r\nauthorization: Key {key}\r\n{told}\r\n".encode() + content


async def paced(port: int, key: str, paths: Sequence[str], rate: float, seconds: float) -> dict[str, Any]:
    """GET these in turn, ``rate`` a second whether or not answers come; ms of each from when it was due."""
    idle: list[Kept] = []
    taken_ms: list[float] = []
    refused = 0

    async def one(asked: bytes, due: float) -> None:
        nonlocal refused
        kept = idle.pop() if idle else await Kept.open(port)
        status = await kept.ask(asked)
        idle.append(kept)
        taken_ms.append((time.monotonic() - due) * 1000)
        refused += status not in (200, 202)

    each = cycle([request("GET", path, key) for path in paths])
    running: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (left_s := due - time.monotonic()) > 0:
            await asyncio.sleep(left_s)
        task = asyncio.create_task(one(next(each), due))
        running.add(task)
        task.add_done_callback(running.discard)
    done, late = await asyncio.wait(running, timeout=WAIT_S) if running else (set(), set())
    for task in late:
        task.cancel()
    for kept in idle:
        kept.close()
    unanswered = len(late) + sum(task.exception() is not None for task in done)
    return {"taken_ms": taken_ms, "refused": refused, "unanswered": unanswered, "connections": len(idle)}


async def posts(port: int, key: str, path: str, body: object, connections: int, seconds: float) -> dict[str, Any]:
    """POST on so many connections, one after the other on each; ms of each."""
    asked = request("POST", path, key, body)
    taken_ms: list[float] = []
    ends = time.monotonic() + seconds

    async def one() -> None:
        kept = await Kept.open(port)
        while (now := time.monotonic()) < ends:
            if (status := await kept.ask(asked)) != 202:
                raise ValueError(f"a submit was answered with {status}")
            taken_ms.append((time.monotonic() - now) * 1000)
        kept.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return {"taken_ms": taken_ms, "rate": len(taken_ms) / seconds}
