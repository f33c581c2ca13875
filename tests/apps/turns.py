"""Apps that share a node's slots: small workers, and endpoints that hold a slot with or without using it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from stoker import App, File, endpoint
from worker_node.distributed import DistributedWorker


class Turn(BaseModel):
    runs: bool = False
    """Whether the ranks are used: what only holds the slot is done without."""
    wait_for: str | None = None
    watch: int | None = None
    writes: bool = False


class Took(BaseModel):
    file: File | None = None
    rank_pid: int | None = None
    watched_is_there: bool | None = None


def is_there(path: str) -> bool:
    return Path(path).exists()


class SmallWorker(DistributedWorker):
    def __call__(self, streaming: bool = False) -> int:
        return os.getpid()


class TakesTurns(App):
    """``watch`` is the id of a process that may be there when the ranks of this app are."""

    name = "tests/turns"
    worker, num_gpus, min_runners = SmallWorker, 1, 0

    @endpoint("/", run_timeout=600)
    async def take(self, request: Turn) -> Took:
        self.log("taken")
        rank_pid = await self.run({}) if request.runs else None
        while request.wait_for is not None and not is_there(request.wait_for):  # noqa: ASYNC110 - a test's signal
            await asyncio.sleep(0.02)
        there = None if request.watch is None else is_there(f"/proc/{request.watch}")
        file = File.from_bytes(b"taken", content_type="text/plain") if request.writes else None
        return Took(rank_pid=rank_pid, watched_is_there=there, file=file)


class Left(TakesTurns):
    """Stays warm for as long as nobody else needs its slots."""

    name = "tests/left"

    @endpoint("/calls")
    async def call_another(self, request: Turn) -> Took:
        """It may not: it would hold its slot meanwhile."""
        return Took(**await self.call("tests/right", request, "/light"))


class Right(TakesTurns):
    """Ends its ranks when they were idle for a moment."""

    name, keep_alive = "tests/right", 0.3

    @endpoint("/light", num_gpus=0)
    async def light(self, request: Turn) -> Took:
        return Took()


class Large(TakesTurns):
    """Wants more than the node has."""

    name, num_gpus = "tests/large", 5


class Fragile(App):
    """Has no memory for some jobs."""

    name = "tests/fragile"

    @endpoint("/")
    async def serve(self, request: Turn) -> Took:
        if request.runs:
            raise MemoryError("no room")
        return Took()
