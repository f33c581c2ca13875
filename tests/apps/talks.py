"""An app that prints, in its own process and in its ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stoker import App, endpoint
from worker_node.distributed import DistributedWorker


class Asked(BaseModel):
    wait_for: str | None = None


class Talked(BaseModel):
    ranks: int


class TalkingWorker(DistributedWorker):
    def __call__(self, wait_for: str | None = None) -> dict[str, Any]:
        from worker_node.diffusion.collectives import agree  # imports torch, which the app's process need not

        print(f"rank {self.rank} was called", flush=True)
        # Ranks may see the file at different moments: they leave the loop together.
        while not agree(wait_for is None or Path(wait_for).exists(), self.world_size):
            self.raise_if_cancelled()
        return {"ranks": self.world_size}


class Much(BaseModel):
    lines: int
    length: int


class Talker(App):
    name = "tests/talker"
    worker, num_gpus = TalkingWorker, 2

    @endpoint("/", run_timeout=600)
    async def talk(self, request: Asked) -> Talked:
        print("the app was called", flush=True)
        return Talked(**await self.run({"wait_for": request.wait_for}))

    @endpoint("/much")
    async def say_much(self, request: Much) -> Talked:
        """Log more than rows may hold, and fail."""
        for number in range(request.lines):
            self.log(f"{number:05} {'x' * request.length}")
        raise ValueError("said all")
