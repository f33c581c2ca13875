"""What goes wrong on a rank: the caller hears of it, and the next call works."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.distributed.conftest import ENV, LogBook, ended
from worker_node.distributed import CallTimeout, DistributedRunner, RankDied, RankFailed, RunnerState, SetupFailed

pytestmark = pytest.mark.anyio

Pids = Callable[[DistributedRunner], list[int]]


async def read(stream: AsyncIterator[Any], into: list[Any]) -> None:
    """Read to the end; what came before an error is in the list."""
    async for item in stream:
        into.append(item)  # noqa: PERF401 - extend() would lose what came before an error


def killed(pid: int) -> None:
    """Kill a child and return when it is dead. The event loop gets no turn in which it could see the death."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def test_defect_03_an_exception_on_another_rank_reaches_the_caller_with_its_traceback_and_costs_no_restart(
    pair: DistributedRunner, pids: Pids
):
    before = pids(pair)

    with pytest.raises(RankFailed, match="rank 1 raised KeyError") as failed:
        await pair.invoke({"do": "fail", "ranks": [1]})

    assert (failed.value.rank, failed.value.type_name) == (1, "KeyError")
    assert failed.value.message == "'no such thing on 1'"
    assert "in fail" in failed.value.traceback
    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert pids(pair) == before


async def test_defect_04_an_exception_on_rank_0_is_raised_and_is_neither_a_value_nor_an_event(
    pair: DistributedRunner, pids: Pids
):
    before, items = pids(pair), []

    with pytest.raises(RankFailed, match="rank 0 raised KeyError"):
        await pair.invoke({"do": "emit_and_fail"})
    with pytest.raises(RankFailed, match="rank 0 raised KeyError") as failed:
        await read(pair.stream({"do": "emit_and_fail"}), items)

    assert items == ["half"]
    assert (failed.value.rank, failed.value.type_name) == (0, "KeyError")
    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert pids(pair) == before


async def test_defect_05_a_rank_that_raises_before_a_collective_leaves_no_half_done_collective_behind(
    pair: DistributedRunner, pids: Pids
):
    before = pids(pair)

    with pytest.raises(RankFailed, match="rank 1 raised"):
        await pair.invoke({"do": "fail", "ranks": [1], "before_collective": True})

    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert not set(pids(pair)) & set(before)


async def test_defect_05_a_rank_that_raises_after_a_collective_costs_no_restart(pair: DistributedRunner, pids: Pids):
    before = pids(pair)

    with pytest.raises(RankFailed, match="rank 0 raised"):
        await pair.invoke({"do": "fail_after_collective", "ranks": [0]})

    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert pids(pair) == before


async def test_defect_06_a_rank_that_dies_while_a_stream_runs_ends_it_and_the_next_call_works(
    pair: DistributedRunner, pids: Pids
):
    restarts = pair.status().restarts
    stream = pair.stream({"do": "step_until_cancelled"})
    assert await anext(stream) == "stepping"

    os.kill(pids(pair)[1], signal.SIGKILL)

    with pytest.raises(RankDied) as died:
        await anext(stream)
    assert (died.value.rank, died.value.exit_code) == (1, -signal.SIGKILL)
    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert pair.status().restarts == restarts + 1


async def test_defect_09_a_rank_that_dies_while_none_calls_is_replaced_without_the_callers_doing(
    pair: DistributedRunner, pids: Pids
):
    before = pids(pair)
    await pair.invoke({"do": "echo"})

    other = os.pidfd_open(before[0])
    os.kill(before[1], signal.SIGKILL)
    # The other rank has to go as well: this is the sign that the death was seen.
    await ended(other)

    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert not set(pids(pair)) & set(before)


async def by_timeout(runner: DistributedRunner) -> None:
    with pytest.raises(CallTimeout) as late:
        await runner.invoke({"do": "step_until_cancelled"}, timeout=0.1)
    assert isinstance(late.value, TimeoutError)
    assert isinstance(late.value, RuntimeError)


async def by_going_away(runner: DistributedRunner) -> None:
    stepping = asyncio.Event()
    call = asyncio.create_task(runner.call({"do": "step_until_cancelled"}, on_event=lambda _: stepping.set()))
    await stepping.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def by_leaving_the_stream(runner: DistributedRunner) -> None:
    async for item in runner.stream({"do": "step_until_cancelled"}):
        assert item == "stepping"
        break


@pytest.mark.parametrize("stop_early", [by_timeout, by_going_away, by_leaving_the_stream])
async def test_defect_11_a_call_that_its_caller_gives_up_stops_in_step_and_costs_no_restart(
    pair: DistributedRunner, pids: Pids, stop_early: Callable[[DistributedRunner], Awaitable[None]]
):
    before = pids(pair)

    # The worker would step for ever: that the next call is served shows that it was stopped.
    await stop_early(pair)

    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert pids(pair) == before


async def test_defect_12_a_failing_setup_is_raised_by_start_with_its_text_without_waiting_for_the_others():
    runner = DistributedRunner("tests.distributed.workers:BadSetup", 2, env=ENV)

    with pytest.raises(SetupFailed, match="rank 1 failed in setup with OSError: no weights in /nowhere") as failed:
        await runner.start(rank=1)

    assert 'raise OSError("no weights in /nowhere")' in failed.value.traceback
    assert runner.status().state is RunnerState.STOPPED


async def test_defect_21_a_call_to_a_rank_that_is_dead_already_is_an_error_and_no_silence(
    single: DistributedRunner, pids: Pids
):
    (pid,) = pids(single)

    killed(pid)
    with pytest.raises(RankDied, match="rank 0 exited with code -9"):
        await single.invoke({"do": "echo"})

    assert await single.invoke({"do": "all_reduce"}) == 1.0


async def test_defect_25_the_death_of_rank_0_ends_the_others_and_writes_a_few_lines_only(
    pair: DistributedRunner, pids: Pids, logs: LogBook, caplog: pytest.LogCaptureFixture
):
    _, other = (os.pidfd_open(pid) for pid in pids(pair))
    caplog.set_level("DEBUG", "worker_node.distributed")
    caplog.clear()

    with pytest.raises(RankDied, match="rank 0 exited with code 3"):
        await pair.invoke({"do": "die", "rank": 0, "how": "exit", "in_collective": True})
    await ended(other)
    await pair.invoke({"do": "echo"})

    assert len(caplog.messages) < 20
    assert sum(map(len, caplog.messages)) < 5000
