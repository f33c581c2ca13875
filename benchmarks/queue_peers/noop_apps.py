"""Stoker's no-op apps: one with a warm rank, so with one seat, and one without ranks, which has eight seats a node."""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel

from stoker import App, endpoint
from worker_node.distributed import DistributedWorker


class Nothing(BaseModel):
    """No input."""


class Entered(BaseModel):
    """When the function was entered."""

    at: float


class NoopWorker(DistributedWorker):
    """Tells when rank 0 was called."""

    def __call__(self, streaming: bool = False) -> dict[str, Any]:  # noqa: ARG002 - given to every worker
        """Serve one call."""
        return {"at": time.time()}


class Warm(App):
    """One seat: with the rank, and without asking it anything."""

    name = "benchmarks/warm"
    worker, num_gpus = NoopWorker, 1

    @endpoint("/")
    async def noop(self, request: Nothing) -> Entered:
        """Call the rank."""
        return Entered(**await self.run(request))

    @endpoint("/plain")
    async def plain(self, request: Nothing) -> Entered:  # noqa: ARG002 - every endpoint has one
        """Tell when it was entered."""
        return Entered(at=time.time())


class Light(App):
    """Eight seats a node."""

    name = "benchmarks/light"
    max_multiplexing = 8

    @endpoint("/")
    async def noop(self, request: Nothing) -> Entered:  # noqa: ARG002 - every endpoint has one
        """Tell when it was entered."""
        return Entered(at=time.time())
