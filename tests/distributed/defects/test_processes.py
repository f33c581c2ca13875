"""Runners beside others: ports, devices, keepalive, turns, and what is shared by a whole process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.distributed.conftest import ENV
from tests.distributed.defects.conftest import MAX_WAITING
from worker_node.distributed import DistributedRunner, RankFailed, TooManyWaiting
from worker_node.distributed.environment import rank_environment
from worker_node.distributed.keepalive import KeepAlive

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).parent / "script.py"
# The script is to test the library that this process has, wherever that lies.
PATHS = {**os.environ, **ENV, "PYTHONPATH": os.pathsep.join(sys.path)}


async def test_defect_13_two_runners_made_with_the_defaults_do_not_meet(
    single: DistributedRunner, pair: DistributedRunner
):
    ask = {"do": "environment", "names": ["MASTER_PORT"]}

    results = await asyncio.gather(*(runner.invoke({"do": "echo"}) for runner in (single, pair)))
    sums = await asyncio.gather(*(runner.invoke({"do": "all_reduce"}) for runner in (single, pair)))
    ports = await asyncio.gather(*(runner.invoke(ask) for runner in (single, pair)))

    assert [result["setup"]["name"] for result in results] == ["single", "pair"]
    assert sums == [1.0, 2.0]
    assert ports[0] != ports[1]


async def test_defect_14_ranks_work_together_without_any_gpu(pair: DistributedRunner):
    assert (await pair.invoke({"do": "whereabouts"}))["device"] == "cpu"
    assert await pair.invoke({"do": "all_reduce"}) == 2.0


@pytest.mark.parametrize("rank", [0, 1])
def test_defect_14_ranks_see_the_chosen_gpus_in_the_chosen_order(rank: int):
    mine = {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}

    env = rank_environment(mine, {}, rank=rank, world_size=2, devices=[3, 1], link="")

    assert env["CUDA_VISIBLE_DEVICES"] == "7,5"


async def test_defect_18_keepalive_runs_in_the_runners_own_loop_and_thread():
    where: asyncio.Future[tuple[int, asyncio.AbstractEventLoop]] = asyncio.get_running_loop().create_future()

    async def act() -> None:
        where.set_result((threading.get_ident(), asyncio.get_running_loop()))

    threads = set(threading.enumerate())
    keepalive = KeepAlive(0.001, act)
    keepalive.start()

    assert set(threading.enumerate()) == threads
    assert await where == (threading.get_ident(), asyncio.get_running_loop())


async def test_defect_18_keepalive_goes_on_after_calls_that_failed():
    seen: asyncio.Queue[str] = asyncio.Queue()
    runner = DistributedRunner(
        "tests.distributed.defects.workers:Counting",
        env=ENV,
        keepalive_interval=0.01,
        on_log=lambda log: seen.put_nowait(log.message),
    )

    async with runner:
        for failing in (runner.invoke({"fail": True}), anext(runner.stream({"fail": True}))):
            with pytest.raises(RankFailed) as failed:
                await failing
            while await seen.get() != f"call {int(failed.value.message) + 1}":
                pass


async def test_defect_18_a_runner_with_keepalive_does_not_keep_the_interpreter_alive():
    left = await asyncio.create_subprocess_exec(sys.executable, SCRIPT, "leave", env=PATHS)

    try:
        assert await left.wait() == 0
    finally:
        if left.returncode is None:
            left.kill()


async def test_defect_19_calls_are_served_first_come_first_served_and_the_waiting_are_counted_and_bounded(
    single: DistributedRunner,
):
    order: list[int] = []

    async def call(number: int) -> None:
        await single.invoke({"do": "echo"})
        order.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(1 + MAX_WAITING)]
    await asyncio.sleep(0)
    waiting = single.status().waiting
    with pytest.raises(TooManyWaiting):
        await single.invoke({"do": "echo"})
    await asyncio.gather(*tasks)

    assert waiting == MAX_WAITING
    assert order == list(range(1 + MAX_WAITING))
    assert single.status().waiting == 0


async def test_defect_23_nothing_that_belongs_to_the_whole_process_is_replaced(single: DistributedRunner):
    script = await asyncio.create_subprocess_exec(sys.executable, SCRIPT, "compare", stdout=subprocess.PIPE, env=PATHS)

    told, _ = await script.communicate()

    assert json.loads(told) == []
    assert await single.invoke({"do": "pickler"}) == "multiprocessing.reduction"
