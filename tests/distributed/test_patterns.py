"""The three patterns of the reference, and async workers, on gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.distributed.conftest import ENV
from worker_node.distributed import DistributedRunner

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("world_size", [2, 4])
async def test_data_parallel_inference_gathers_every_ranks_share(world_size: int):
    async with DistributedRunner("tests.distributed.workers:Parallel", world_size, env=ENV) as runner:
        result = await runner.invoke({"count": 4})

    seeds = [[float(row[0]) for row in share] for share in result["outputs"]]
    assert seeds == [[float(seed) for seed in range(rank, 4, world_size)] for rank in range(world_size)]


async def test_ddp_training_keeps_the_ranks_weights_equal_learns_and_streams_progress():
    async with DistributedRunner("tests.distributed.workers:Trainer", 2, env=ENV) as runner:
        *progress, result = [item async for item in runner.stream({"steps": 60})]

    assert torch.equal(result["weights"][0], result["weights"][1])
    assert result["loss"] < progress[0]["loss"] / 10
    assert [item["step"] for item in progress] == list(range(0, 60, 5))


async def test_async_workers_are_awaited_and_torn_down(tmp_path: Path):
    mark = tmp_path / "mark"
    runner = DistributedRunner("tests.distributed.workers:Async", 1, env=ENV)

    await runner.start(mark=str(mark))
    streamed = [item async for item in runner.stream({"number": 21})]
    await runner.stop()

    assert streamed == [{"half": 10.5}, 42]
    assert mark.read_text() == "torn down"
