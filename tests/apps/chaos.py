"""Apps for chaos: work that lasts as long as it is told to, with and without ranks, and does what it is told."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from stoker import App, File, endpoint

STEP_S, LEFT_S = 0.1, 2.0


class Work(BaseModel):
    seconds: float = 0.02
    writes: bool = False
    fails: bool = False


class Done(BaseModel):
    seconds: float
    file: File | None = None


class Mixed(App):
    """No ranks."""

    name = "chaos/mixed"

    @endpoint("/", run_timeout=90, max_attempts=2)
    async def work(self, request: Work) -> Done:
        self.log("begins")
        for step in range(steps := max(1, round(request.seconds / STEP_S))):
            await asyncio.sleep(request.seconds / steps)
            self.progress(step=step + 1, total=steps)
        if request.fails:
            raise ValueError("as it was told to")
        # No last words: what an attempt that has lost its job would say is refused, and then nothing tries its finish.
        return done(request)

    @endpoint("/parent", run_timeout=90)
    async def call_others(self, request: Work) -> Done:
        """Two children; where it is to fail, it leaves one behind."""
        work = Work(seconds=request.seconds / 2, writes=request.writes)
        if request.fails:
            left = asyncio.ensure_future(self.call(self.name, Work(seconds=LEFT_S)))
            await asyncio.wait([left], timeout=STEP_S)
            raise ValueError("as it was told to")
        await asyncio.gather(*(self.call(self.name, work, key=f"child {number}") for number in (1, 2)))
        return done(request)


class Ranked(App):
    """Ranks, which start at the first job."""

    name = "chaos/ranked"
    worker = "tests.apps.chaos_ranks:RankedWorker"  # so that the process of Mixed starts sooner
    num_gpus, min_runners = 1, 0

    @endpoint("/", run_timeout=90)
    async def work(self, request: Work) -> Done:
        await self.run(request)
        return done(request)


def done(request: Work) -> Done:
    written = (
        File.from_bytes(b"written " * 64, content_type="text/plain", file_name="w.txt") if request.writes else None
    )
    return Done(seconds=request.seconds, file=written)
