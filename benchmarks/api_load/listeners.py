"""Clients of event streams, thousands in one event loop: a socket and a parser of frames each, and no HTTP library.

Each goes on elsewhere when its connection ends, as a browser does: the next address, the id of the last event, after
the pause that the server asked for. It checks that rows come in order, each once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import orjson

OPENING = 100
"""So many connections are being opened at a time."""


class Listeners:
    """All of them, and what they have heard since ``begin``."""

    def __init__(self, ports: Sequence[int], key: str) -> None:
        self.ports, self.key = list(ports), key
        self.all: list[Listener] = []
        self.delays: dict[str, list[float]] = {"progress": [], "log": []}
        self.reconnects, self.refused = 0, 0
        self.outages_ms: list[float] = []
        self.changed = asyncio.Event()

    async def open(self, jobs: Sequence[str], each: int, *, spread: bool = False) -> None:
        """Follow each job ``each`` times, and return once all have seen that it runs."""
        turn = asyncio.Semaphore(OPENING)

        async def one(listener: Listener) -> None:
            async with turn:
                await listener.connect()
                await listener.runs.wait()

        new = [
            Listener(self, job, number % len(self.ports) if spread else 0)
            for number, job in enumerate(list(jobs) * each)
        ]
        self.all += new
        await asyncio.gather(*(one(listener) for listener in new))

    def begin(self) -> None:
        """Forget delays: what is heard from now on counts."""
        self.delays = {"progress": [], "log": []}

    async def until(self, limit_s: float, **at_least: int) -> bool:
        """Wait until each has heard so many of each kind; False when one that has not hears nothing for ``limit_s``."""
        for each in self.all:
            while any(each.heard[kind] < least for kind, least in at_least.items()):
                self.changed.clear()
                each.awaited = True
                try:
                    async with asyncio.timeout(limit_s):
                        await self.changed.wait()
                except TimeoutError:
                    return False
        return True

    def total(self, what: str) -> int:
        """Sum of what each has heard or suffered."""
        return sum(cast("int", each.heard[what]) for each in self.all)


class Listener(asyncio.Protocol):
    """One client of one job's stream."""

    def __init__(self, among: Listeners, job: str, at: int) -> None:
        self._among, self._job, self._at = among, job, at
        self.heard = dict.fromkeys(("log", "progress", "preview", "state", "out_of_order", "final"), 0)
        self.runs = asyncio.Event()
        self.awaited = False
        self._seq, self._last_id, self._retry_s = 0, "", 1.0
        self._rest, self._lost_at = b"", 0.0
        self._transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        """Connect to the first address that answers, its own first."""
        waits: deque[float] = deque([0.05, 0.1, 0.2, 0.5, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
        while True:
            port = self._among.ports[self._at % len(self._among.ports)]
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
            except OSError:
                self._at += 1
                if not waits:
                    raise
                await asyncio.sleep(waits.popleft())
            else:
                return

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self._transport, self._rest = cast("asyncio.Transport", transport), b""
        last = f"last-event-id: {self._last_id}\r\n" if self._last_id else ""
        asked = f"GET /v1/jobs/{self._job}/events HTTP/1.1\r\nhost: api\r\nauthorization: Key {self._among.key}\r\n"
        self._transport.write(f"{asked}{last}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Take frames apart. What HTTP's chunks put between frames stands before their first field."""
        now = time.time()
        *frames, self._rest = (self._rest + data).split(b"\n\n")
        if self._lost_at:
            self._among.outages_ms.append((time.monotonic() - self._lost_at) * 1000)
            self._lost_at = 0.0
        for frame in frames:
            self._take(frame, now)
        if not frames and self._rest.startswith(b"HTTP/1.1 ") and self._rest[9:12] not in (b"200", b"204"):
            self._among.refused += 1

    def _take(self, frame: bytes, now: float) -> None:
        among = self._among
        if (begin := frame.find(b"event: ")) < 0:
            if (said := frame.find(b"retry: ")) >= 0:
                self._retry_s = int(frame[said + 7 :]) / 1000
            return
        kind, event_id, data = frame[begin:].split(b"\n", 2)
        name = kind[7:].decode()
        self._last_id = event_id[4:].decode()
        seq, _, n = self._last_id.split(".")
        if n == "0":
            self.heard["out_of_order"] += int(seq) != self._seq + 1
            self._seq = int(seq)
        self.heard[name] += 1
        if name in among.delays:
            among.delays[name].append(now - orjson.loads(data[6:]).get("sent_at", now))
        elif name == "state":
            self._note_state(orjson.loads(data[6:]))
        if self.awaited:
            self.awaited = False
            among.changed.set()

    def _note_state(self, state: dict[str, Any]) -> None:
        if state["state"] == "running":
            self.runs.set()
        elif state["state"] == "succeeded":
            self.heard["final"] += state["result"] == {"of": self._job}

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Come back, unless all was heard."""
        if self.heard["final"]:
            return
        self._at += 1
        self._lost_at = time.monotonic()
        self._among.reconnects += 1
        loop = asyncio.get_running_loop()
        loop.call_later(self._retry_s, lambda: loop.create_task(self.connect()))
