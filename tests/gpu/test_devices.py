"""Which GPU a rank works on, two runners beside each other, and what comes back from a GPU."""

from __future__ import annotations

import asyncio

import pytest
import torch

from tests.gpu.workers import DTYPES, patterned
from worker_node.distributed import DistributedRunner

pytestmark = pytest.mark.anyio

TOOLBOX = "tests.gpu.workers:GpuToolbox"


def names_of(devices: list[int]) -> list[str]:
    return [str(torch.cuda.get_device_properties(device).uuid) for device in devices]


async def test_each_rank_works_on_its_own_gpu_and_they_meet_in_a_collective(
    runner: DistributedRunner, world_size: int
) -> None:
    total = await runner.invoke({"do": "all_reduce"})
    where = await runner.invoke({"do": "whereabouts"})

    assert total == world_size
    assert where["device"] == "cuda:0"
    assert await runner.invoke({"do": "uuids"}) == names_of(list(range(world_size)))


@pytest.mark.parametrize("devices", [[0], [2], [1, 3], [3, 0]], ids=str)
async def test_a_runner_keeps_to_the_gpus_that_it_was_given_in_their_order(devices: list[int], world_size: int) -> None:
    if max(devices) >= world_size:
        pytest.skip(f"needs {max(devices) + 1} GPUs")

    async with DistributedRunner(TOOLBOX, len(devices), devices=devices) as runner:
        seen = await runner.invoke({"do": "environment", "names": ["CUDA_VISIBLE_DEVICES"]})
        total = await runner.invoke({"do": "all_reduce"})
        uuids = await runner.invoke({"do": "uuids"})

    assert seen == {"CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
    assert total == len(devices)
    assert uuids == names_of(devices)


async def test_two_runners_on_gpus_of_their_own_do_not_meet(many: int) -> None:
    shares = [list(range(many // 2)), list(range(many // 2, many))]
    runners = [DistributedRunner(TOOLBOX, len(share), devices=share) for share in shares]

    await asyncio.gather(*(runner.start() for runner in runners))
    try:
        sums = await asyncio.gather(*(runner.invoke({"do": "all_reduce"}) for runner in runners for _ in range(20)))
        uuids = [await runner.invoke({"do": "uuids"}) for runner in runners]
    finally:
        await asyncio.gather(*(runner.stop() for runner in runners))

    assert sums == [len(share) for share in shares for _ in range(20)]
    assert uuids == [names_of(share) for share in shares]


async def test_a_tensor_of_any_dtype_comes_back_from_the_gpu_bit_for_bit(runner: DistributedRunner) -> None:
    tensors = await runner.invoke({"do": "tensors"})

    for name in DTYPES:
        back, expected = tensors[name], patterned(name)
        assert (back.device.type, back.dtype, back.shape) == ("cpu", expected.dtype, expected.shape), name
        assert torch.equal(back.view(torch.uint8), expected.view(torch.uint8)), name
    assert torch.equal(
        tensors["transposed"].contiguous().view(torch.uint8), patterned("float32").T.contiguous().view(torch.uint8)
    )
