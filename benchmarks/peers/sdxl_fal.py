"""The same pictures through fal.distributed. Needs fal on PYTHONPATH and GPUs. Started by ``sdxl``."""

from __future__ import annotations

import asyncio
import json
import sys
import time

# It is in an environment of its own, where nothing is type-checked.
from fal.distributed import DistributedRunner, DistributedWorker  # type: ignore[import-not-found]

from benchmarks.peers.lines import Asked
from benchmarks.sdxl_model import Share, digest


class FalPictures(Share, DistributedWorker):  # type: ignore[misc]
    """The share of a rank as fal's worker."""


async def main() -> None:
    """Start a runner, then make ``count`` calls each time it is asked, and tell when each began and was answered."""
    # As a module: the ranks could not find a class of a script.
    from benchmarks.peers.sdxl_fal import FalPictures as Worker

    asked = Asked()
    world_size, how = int(sys.argv[1]), json.loads(sys.argv[2])
    runner = DistributedRunner(Worker, world_size)
    await runner.start(**how)
    for request in asked:
        times, pictures = [], []
        for number in range(request["count"]):
            began = time.monotonic()
            result = await runner.invoke({"seed": request["seed"] + number * world_size})
            pictures += list(result["pictures"])
            times.append((began, time.monotonic()))
        spans = (await runner.invoke({"spans": True}))["spans"]
        asked.answer({"times": times, "digests": [digest(picture) for picture in pictures], "spans": spans})
    await runner.stop()


if __name__ == "__main__":
    asyncio.run(main())
