"""The runner on GPUs: collectives over NCCL, ranks that die inside one, cancels, and a chosen GPU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from worker_node.distributed import CallCancelled, DistributedRunner, RankDied, RankEvent

pytestmark = pytest.mark.anyio

TOOLBOX = "tests.distributed.workers:Toolbox"


@pytest.fixture(scope="module")
async def runner(anyio_backend: str, world_size: int) -> AsyncIterator[DistributedRunner]:
    """A warm Toolbox on every GPU."""
    runner = DistributedRunner(TOOLBOX, world_size)
    await runner.start()
    yield runner
    await runner.stop()


async def test_each_rank_works_on_its_own_gpu_and_they_meet_in_a_collective(
    runner: DistributedRunner, world_size: int
) -> None:
    total = await runner.invoke({"do": "all_reduce"})
    where = await runner.invoke({"do": "whereabouts"})

    assert total == world_size
    assert where["device"] == "cuda:0"


async def test_a_rank_killed_in_an_nccl_collective_is_an_error_and_the_next_call_works(
    runner: DistributedRunner, world_size: int
) -> None:
    if world_size < 2:
        pytest.skip("needs two GPUs")

    with pytest.raises(RankDied) as death:
        await runner.invoke({"do": "die", "rank": 1, "how": "kill", "in_collective": True})

    assert death.value.rank == 1
    assert await runner.invoke({"do": "all_reduce"}) == world_size


async def test_a_cancel_by_vote_keeps_the_ranks_warm(runner: DistributedRunner, world_size: int) -> None:
    stepping = asyncio.Event()
    before = [rank.pid for rank in runner.status().ranks]

    def on_event(_event: RankEvent) -> None:
        stepping.set()

    call = asyncio.create_task(runner.call({"do": "step_until_cancelled"}, on_event=on_event))
    await stepping.wait()
    await runner.cancel()

    with pytest.raises(CallCancelled):
        await call
    assert [rank.pid for rank in runner.status().ranks] == before
    assert await runner.invoke({"do": "all_reduce"}) == world_size


async def test_a_runner_keeps_to_the_gpus_that_it_was_given(world_size: int) -> None:
    last = world_size - 1
    async with DistributedRunner(TOOLBOX, 1, devices=[last]) as runner:
        seen = await runner.invoke({"do": "environment", "names": ["CUDA_VISIBLE_DEVICES"]})

    assert seen == {"CUDA_VISIBLE_DEVICES": str(last)}
