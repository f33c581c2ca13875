"""An app whose ranks note when they are called: what benchmarks of latency run."""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel

from stoker import App, endpoint
from worker_node.distributed import DistributedWorker


class Nothing(BaseModel):
    pass


class Stamps(BaseModel):
    called_at: float


class StampWorker(DistributedWorker):
    def __call__(self, streaming: bool = False) -> dict[str, Any]:
        called_at = time.time()
        if streaming and self.rank == 0:
            self.add_streaming_result({"sent_at": time.time()})
        return {"called_at": called_at}


class Stamper(App):
    """Answers with the moment at which rank 0 was called."""

    name = "benchmarks/stamper"
    worker, num_gpus = StampWorker, 2

    @endpoint("/")
    async def stamp(self, request: Nothing) -> Stamps:
        return Stamps(**await self.run(request))
