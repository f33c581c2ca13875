"""What goes wrong around an NCCL collective: deaths, hangs, exceptions, cancels. The next call works."""

from __future__ import annotations

import asyncio

import psutil
import pytest
import torch

from worker_node.distributed import CallCancelled, CallTimeout, DistributedRunner, RankDied, RankEvent, RankFailed

pytestmark = pytest.mark.anyio

GIB = 2**30


def pids(runner: DistributedRunner) -> list[int]:
    return [rank.pid for rank in runner.status().ranks]


def free_bytes(world_size: int) -> list[int]:
    return [torch.cuda.mem_get_info(device)[0] for device in range(world_size)]


async def test_a_rank_killed_in_an_nccl_collective_is_an_error_and_the_next_call_works(
    runner: DistributedRunner, many: int
) -> None:
    with pytest.raises(RankDied) as death:
        await runner.invoke({"do": "die", "rank": 1, "how": "kill", "in_collective": True})

    assert death.value.rank == 1
    assert await runner.invoke({"do": "all_reduce"}) == many


async def test_a_collective_that_hangs_ends_at_the_timeout_and_its_ranks_give_back_their_memory(
    runner: DistributedRunner, many: int
) -> None:
    await runner.invoke({"do": "all_reduce"})
    before, old = free_bytes(many), pids(runner)
    holding: list[int] = []
    while_hanging: list[int] = []

    def on_event(event: RankEvent) -> None:
        holding.append(event.rank)
        if len(holding) == many:
            while_hanging.extend(free_bytes(many))

    with pytest.raises(CallTimeout):
        await runner.call(
            {"do": "wait_for_a_rank_that_never_comes", "hold_bytes": 8 * GIB}, timeout=3, on_event=on_event
        )
    total = await runner.invoke({"do": "all_reduce"})

    assert total == many
    assert not [pid for pid in old if psutil.pid_exists(pid)], "ranks that were to be killed"
    for free, was, held in zip(free_bytes(many), before, while_hanging, strict=True):
        assert was - held > 7 * GIB, "the ranks held no memory"
        assert was - free < GIB, "memory of a dead rank is not free"


async def test_an_exception_before_a_collective_reaches_the_caller_though_the_others_wait_in_it(
    runner: DistributedRunner, many: int
) -> None:
    last = many - 1

    with pytest.raises(RankFailed) as failure:
        await runner.invoke({"do": "fail", "ranks": [last], "before_collective": True})

    assert (failure.value.rank, failure.value.type_name) == (last, "KeyError")
    assert await runner.invoke({"do": "all_reduce"}) == many


async def test_a_cancel_by_vote_keeps_the_ranks_warm(runner: DistributedRunner, world_size: int) -> None:
    stepping = asyncio.Event()
    before = pids(runner)

    def on_event(_event: RankEvent) -> None:
        stepping.set()

    call = asyncio.create_task(runner.call({"do": "step_until_cancelled"}, on_event=on_event))
    await stepping.wait()
    await runner.cancel()

    with pytest.raises(CallCancelled):
        await call
    assert pids(runner) == before
    assert await runner.invoke({"do": "all_reduce"}) == world_size
