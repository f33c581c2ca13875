"""An app that takes most of its GPUs' memory. Imported by an app host and by ranks, never by a test."""

from __future__ import annotations

from pydantic import BaseModel

from stoker import App, endpoint


class Amount(BaseModel):
    gib: int


class Held(BaseModel):
    ranks: int


class Hog(App):
    """Its ranks keep what they took until they end."""

    name = "tests/hog"
    worker, num_gpus = "tests.gpu.workers:GpuToolbox", 1

    @endpoint("/")
    async def hold(self, request: Amount) -> Held:
        """Take so much on each GPU."""
        return Held(ranks=await self.run({"do": "hold", "gib": request.gib}))
