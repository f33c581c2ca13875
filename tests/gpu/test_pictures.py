"""The text-to-image worker on GPUs: the shipped model, spread over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker_node.distributed import DistributedRunner
from worker_node.models.shapes128 import WEIGHTS_DIR

pytestmark = pytest.mark.anyio

WORKER = "worker_node.diffusion.text_to_image:TextToImageWorker"
REQUEST = {"prompt": "a large red circle on the left", "seed": 7, "num_images": 6}


async def draw(world_size: int) -> dict[str, Any]:
    runner = DistributedRunner(WORKER, world_size)
    await runner.start(model=str(WEIGHTS_DIR), max_batch=1)
    try:
        result: dict[str, Any] = await runner.invoke(REQUEST)
        return result
    finally:
        await runner.stop()


async def test_pictures_of_all_gpus_are_those_of_one(world_size: int) -> None:
    alone, together = await draw(1), await draw(world_size)

    assert alone["seeds"] == together["seeds"] == [7, 8, 9, 10, 11, 12]
    for one, other in zip(alone["images"], together["images"], strict=True):
        assert one.std() > 10, "an empty picture"
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 2
