"""Apps that work: with and without ranks."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stoker import App, File, endpoint
from worker_node.distributed import DistributedWorker


class Text(BaseModel):
    text: str = ""


class Said(BaseModel):
    text: str
    file: File | None = None


class Steps(BaseModel):
    steps: int = 3
    wait_for: str | None = None
    """A path: the work does not end before something is there."""
    last_words: str | None = None


class Done(BaseModel):
    steps: int
    ranks: int


def is_there(path: str | None) -> bool:
    return path is None or Path(path).exists()


class Echo(App):
    """No ranks: text in, text and a file out."""

    name = "tests/echo"

    @endpoint("/")
    async def say(self, request: Text) -> Said:
        self.log(f"saying {request.text}")
        self.progress(step=1, total=1)
        return Said(text=request.text)

    @endpoint("/file")
    async def write(self, request: Text) -> Said:
        content = request.text.encode()
        file = File.from_bytes(content, content_type="text/plain", file_name="said.txt")
        return Said(text=hashlib.sha256(content).hexdigest(), file=file)

    @endpoint("/wait", run_timeout=600)
    async def wait(self, request: Steps) -> Said:
        """Hold the job until the test puts a file at ``wait_for``."""
        self.log("waiting")
        while not is_there(request.wait_for):  # noqa: ASYNC110 - a test's signal is a file
            await asyncio.sleep(0.02)
        if request.last_words:
            self.log(request.last_words)
        return Said(text="waited", file=File.from_bytes(b"waited", content_type="text/plain", file_name="waited.txt"))

    @endpoint("/hurried", run_timeout=0.5)
    async def hurry(self, request: Text) -> Said:
        """Runs out of time."""
        await asyncio.Event().wait()
        return Said(text="never")


class CountingWorker(DistributedWorker):
    def setup(self) -> None:
        self.calls = 0

    def __call__(self, steps: int, wait_for: str | None = None, streaming: bool = False) -> dict[str, Any]:
        from worker_node.diffusion.collectives import agree  # imports torch, which the app's process need not

        self.calls += 1
        for step in range(1, steps + 1):
            self.add_streaming_result({"step": step, "total": steps})
        # Ranks may see the file at different moments: they leave the loop together.
        while not agree(is_there(wait_for), self.world_size):
            self.raise_if_cancelled()
        return {"steps": steps, "ranks": self.world_size}


class Hesitant(App):
    """Starts no ranks before the first job, whose endpoint never comes to ask for them."""

    name = "tests/hesitant"
    worker, num_gpus, min_runners = CountingWorker, 2, 0

    @endpoint("/", run_timeout=0.5)
    async def hesitate(self, request: Text) -> Done:
        await asyncio.Event().wait()
        return Done(**await self.run({"steps": 1}))


class TwoRanks(App):
    """Ranks that count, and stop when they are asked to."""

    name = "tests/two-ranks"
    worker, num_gpus = CountingWorker, 2

    @endpoint("/", run_timeout=600)
    async def count(self, request: Steps) -> Done:
        self.log("counting")
        return Done(**await self.run({"steps": request.steps, "wait_for": request.wait_for}))

    @endpoint("/stall", run_timeout=600, stall_timeout=0.5)
    async def stall(self, request: Steps) -> Done:
        """Shows its steps, then waits for what does not come."""
        return Done(**await self.run({"steps": request.steps, "wait_for": request.wait_for}))


class Late(App):
    """Starts its ranks for the first job: that one waits for them."""

    name = "tests/late"
    worker, num_gpus, min_runners = CountingWorker, 1, 0

    @endpoint("/", run_timeout=600)
    async def count(self, request: Steps) -> Done:
        return Done(**await self.run({"steps": request.steps}))
