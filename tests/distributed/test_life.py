"""Runners come and go: processes, files and neighbours."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.distributed.conftest import ENV, TOOLBOX, ended
from worker_node.distributed import (
    DistributedRunner,
    DistributedWorker,
    InvalidWorker,
    NotRunning,
    RankDied,
    RunnerState,
)

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).parent / "script.py"
# The script is to test the library that this process has, wherever that lies.
PATHS = {**os.environ, **ENV, "PYTHONPATH": os.pathsep.join(sys.path)}


async def test_ranks_die_with_a_parent_that_is_killed_and_leave_no_file(tmp_path: Path):
    """By the kernel's doing: the guardian, which ends what they have started, may have been killed before."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, "stay", stdout=subprocess.PIPE, env={**PATHS, "TMPDIR": str(tmp_path)}
    )
    assert parent.stdout is not None
    ranks = [os.pidfd_open(int(pid)) for pid in (await parent.stdout.readline()).split()]
    [guardian] = [child for child in psutil.Process(parent.pid).children() if child.name() == "sh"]

    guardian.kill()
    parent.kill()
    await parent.wait()

    assert len(ranks) == 2
    for rank in ranks:
        await ended(rank)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - the lint for async code forbids iterdir here


@pytest.mark.parametrize("where", ["import", "setup"])
async def test_ranks_that_are_not_ready_die_with_a_parent_that_is_killed(where: str, tmp_path: Path):
    env = {**PATHS, "TMPDIR": str(tmp_path), "STALL": where}
    parent = await asyncio.create_subprocess_exec(sys.executable, SCRIPT, stdout=subprocess.PIPE, env=env)
    assert parent.stdout is not None
    ranks = [os.pidfd_open(int(await parent.stdout.readline())) for _ in range(2)]

    parent.kill()
    await parent.wait()

    for rank in ranks:
        await ended(rank)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - the lint for async code forbids iterdir here


async def test_a_class_of_a_script_is_found_in_the_scripts_own_file():
    script = await asyncio.create_subprocess_exec(sys.executable, SCRIPT, env=PATHS)

    assert await script.wait() == 0


async def test_a_class_inside_a_function_is_refused_with_a_hint():
    class Local(DistributedWorker):
        pass

    with pytest.raises(InvalidWorker, match="move it to the top") as refused:
        DistributedRunner(Local)

    assert "module" in refused.value.hint


async def test_eight_ranks_work_together_and_do_not_meet_a_runner_that_starts_at_the_same_time():
    eight, two = DistributedRunner(TOOLBOX, 8, env=ENV), DistributedRunner(TOOLBOX, 2, env=ENV)
    await asyncio.gather(eight.start(name="eight"), two.start(name="two"))

    results = await asyncio.gather(*(runner.invoke({"do": "echo"}) for runner in (eight, two)))
    sums = await asyncio.gather(*(runner.invoke({"do": "all_reduce"}) for runner in (eight, two)))
    await asyncio.gather(eight.stop(), two.stop())

    assert [result["setup"]["name"] for result in results] == ["eight", "two"]
    assert sums == [8.0, 2.0]


async def test_ranks_meet_on_the_port_that_was_asked_for_after_a_rebuild_too():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runner = DistributedRunner(TOOLBOX, 2, master_port=port, env=ENV)
    asked = {"do": "environment", "names": ["MASTER_PORT"]}

    async with runner:
        first = await runner.invoke(asked)
        os.kill(runner.status().ranks[0].pid, signal.SIGKILL)
        with pytest.raises(RankDied):
            await runner.invoke({"do": "ignore_cancel"})
        second = await runner.invoke(asked)

    assert first == second == {"MASTER_PORT": str(port)}


async def test_stop_ends_every_process_and_a_stopped_runner_can_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runner = DistributedRunner(TOOLBOX, 1, env=ENV)
    await runner.start()
    first = os.pidfd_open(runner.status().ranks[0].pid)

    await runner.stop()

    await ended(first)
    assert runner.status().state is RunnerState.STOPPED
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - the lint for async code forbids iterdir here
    with pytest.raises(NotRunning):
        await runner.invoke({"do": "echo"})
    async with runner:
        assert await runner.invoke({"do": "all_reduce"}) == 1.0


async def test_stop_lets_the_running_call_end_and_sends_the_waiting_away():
    runner = DistributedRunner(TOOLBOX, 1, env=ENV)
    await runner.start()
    running = asyncio.create_task(runner.invoke({"do": "emit", "count": 1000, "ranks": [0], "tag": "ran"}))
    waiting = asyncio.create_task(runner.invoke({"do": "echo"}))
    await asyncio.sleep(0)

    await runner.stop()

    assert await running == "ran"
    with pytest.raises(NotRunning):
        await waiting


async def test_stop_kills_a_call_that_does_not_end():
    runner = DistributedRunner(TOOLBOX, 1, env=ENV)
    await runner.start()
    running = asyncio.create_task(runner.invoke({"do": "ignore_cancel"}))
    await asyncio.sleep(0)

    await runner.stop(timeout=0.1)

    with pytest.raises(NotRunning):
        await running


async def test_stop_while_it_starts_ends_the_start():
    runner = DistributedRunner("tests.distributed.workers:BadSetup", 1, env=ENV)
    starting = asyncio.create_task(runner.start(rank=5))
    await asyncio.sleep(0)

    await runner.stop()

    with pytest.raises(NotRunning):
        await starting
    assert runner.status().state is RunnerState.STOPPED


async def test_terminate_ends_the_ranks_and_the_call_without_awaiting():
    runner = DistributedRunner(TOOLBOX, 2, env=ENV)
    await runner.start()
    running = asyncio.create_task(runner.invoke({"do": "ignore_cancel"}))
    await asyncio.sleep(0)
    ranks = [os.pidfd_open(rank.pid) for rank in runner.status().ranks]

    runner.terminate()

    for rank in ranks:
        await ended(rank)
    with pytest.raises(NotRunning):
        await running
    assert not runner.is_alive()


async def test_ranks_work_in_cwd_with_extra_environment_on_the_chosen_devices(tmp_path: Path):
    runner = DistributedRunner(TOOLBOX, 1, cwd=str(tmp_path), env={**ENV, "COLOUR": "red"}, devices=[])

    async with runner:
        where = await runner.invoke({"do": "whereabouts"})
        names = ["COLOUR", "CUDA_VISIBLE_DEVICES"]
        env = await runner.invoke({"do": "environment", "names": names})

    assert where == {"cwd": str(tmp_path), "device": "cpu"}
    assert env == {"COLOUR": "red", "CUDA_VISIBLE_DEVICES": ""}


async def test_cores_are_shared_out_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    async with DistributedRunner(TOOLBOX, 2) as runner:
        threads = await runner.invoke({"do": "threads"})

    assert threads == max(1, (os.cpu_count() or 1) // 2)


async def test_a_rank_that_prints_a_lot_is_slowed_and_goes_on():
    lines: list[str] = []
    runner = DistributedRunner(TOOLBOX, env=ENV, on_log=lambda log: lines.append(log.message))

    async with runner:
        # More than is read in one go, and more than the pipe holds beyond that.
        assert await runner.invoke({"do": "chatter", "size": 400_000}) == 400_000

    assert lines.count("x" * 99) > 2500
