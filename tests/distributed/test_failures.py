"""What goes wrong on a rank reaches the caller, and the next call works."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.conftest import ENV, TOOLBOX, ended
from worker_node.distributed import (
    CallTimeout,
    DistributedRunner,
    PoolBroken,
    RankDied,
    RankFailed,
    RunnerState,
    SerializationFailed,
    SetupFailed,
    SpawnFailed,
    StartTimeout,
)

pytestmark = pytest.mark.anyio

Pids = Callable[[DistributedRunner], list[int]]


@pytest.mark.parametrize(("how", "says"), [("half", "ValueError: half"), ("mute", "Mute: .*RuntimeError")])
async def test_an_exception_that_cannot_be_put_into_words_costs_no_rank(
    single: DistributedRunner, pids: Pids, how: str, says: str
):
    before = pids(single)

    with pytest.raises(RankFailed, match=says):
        await single.invoke({"do": "fail_oddly", "how": how})

    assert await single.invoke({"do": "all_reduce"}) == 1.0
    assert pids(single) == before


async def test_a_log_line_that_cannot_be_written_ends_no_call(single: DistributedRunner):
    assert await single.invoke({"do": "fail_oddly", "how": "log"}) is None


async def test_exceptions_on_all_ranks_come_as_one_that_holds_the_others(pair: DistributedRunner):
    with pytest.raises(RankFailed) as failed:
        await pair.invoke({"do": "fail", "ranks": [0, 1]})

    assert {failed.value.rank, *(other.rank for other in failed.value.others)} == {0, 1}


async def test_what_a_rank_started_dies_with_a_killed_rank(single: DistributedRunner):
    helper = os.pidfd_open(await single.invoke({"do": "spawn_helper"}))

    with pytest.raises(RankDied):
        await single.invoke({"do": "die", "rank": 0, "how": "kill"})

    await ended(helper)


async def test_the_error_of_a_dead_rank_has_its_last_words(single: DistributedRunner):
    with pytest.raises(RankDied) as died:
        await single.invoke({"do": "abort_loudly"})

    assert died.value.exit_code == -signal.SIGABRT
    assert any("Fatal Python error" in line for line in died.value.last_output)


async def test_ranks_made_anew_speak_to_the_threads_that_those_before_spoke_to(single: DistributedRunner):
    await single.invoke({"do": "all_reduce"})
    before = threads()

    with pytest.raises(RankDied):
        await single.invoke({"do": "die", "rank": 0, "how": "kill"})
    await single.invoke({"do": "all_reduce"})

    # What a thread has received into stays with it; new ones with each rebuild would keep ever more.
    assert before <= threads()


def threads() -> set[str]:
    return {entry.name for entry in Path("/proc/self/task").iterdir()}


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_error_that_nobody_has_any_more_is_not_left_to_the_garbage_collector(
    single: DistributedRunner, streaming: bool
):
    payload = {"do": "make", "what": "lock"}

    async def failed() -> weakref.ref[SerializationFailed] | None:
        try:
            if streaming:
                [_ async for _ in single.stream(payload)]
            else:
                await single.invoke(payload)
        except SerializationFailed as error:
            return weakref.ref(error)
        return None

    gc.collect()
    gc.disable()
    try:
        error = await failed()
        assert error is not None
        assert error() is None
    finally:
        gc.enable()


async def test_a_call_that_hangs_is_killed_after_its_timeout_and_the_next_call_works(
    pair: DistributedRunner, pids: Pids
):
    before = pids(pair)

    with pytest.raises(CallTimeout):
        await pair.invoke({"do": "ignore_cancel"}, timeout=0.1)

    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert not set(pids(pair)) & set(before)


async def test_a_silent_stream_ends_at_its_streaming_timeout(single: DistributedRunner):
    stream = single.stream({"do": "step_until_cancelled"}, streaming_timeout=0.3)
    first = await anext(stream)

    with pytest.raises(CallTimeout, match="nothing came"):
        await anext(stream)

    assert first == "stepping"


async def test_the_runners_own_timeout_bounds_calls_that_name_none():
    async with DistributedRunner(TOOLBOX, env=ENV, timeout=0.2) as runner:
        with pytest.raises(CallTimeout):
            await runner.invoke({"do": "step_until_cancelled"})


async def test_a_rank_that_dies_in_setup_is_raised_by_start():
    runner = DistributedRunner("tests.distributed.workers:BadSetup", 2, env=ENV)

    with pytest.raises(RankDied) as died:
        await runner.start(rank=1, how="die")

    assert (died.value.rank, died.value.exit_code) == (1, 9)


async def test_a_setup_that_takes_too_long_is_a_timeout_and_leaves_no_process():
    runner = DistributedRunner("tests.distributed.workers:BadSetup", env=ENV)

    with pytest.raises(StartTimeout) as late:
        await runner.start(timeout=1, rank=5)

    assert isinstance(late.value, TimeoutError)
    assert late.value.missing == (0,)
    assert runner.status().ranks == ()


@pytest.mark.parametrize(
    ("worker", "what"),
    [
        ("tests.distributed.workers:Missing", "has no Missing"),
        ("tests.distributed.nowhere:Worker", "No module named"),
        ("tests.distributed.workers:NotOurs", "not a subclass of DistributedWorker"),
    ],
)
async def test_a_class_that_cannot_be_loaded_is_an_error_of_start(worker: str, what: str):
    with pytest.raises(SetupFailed, match=what):
        await DistributedRunner(worker, env=ENV).start()


async def test_a_pool_that_cannot_be_rebuilt_is_broken_says_why_and_can_be_started_again(tmp_path: Path):
    runner = DistributedRunner("tests.distributed.workers:FailsAgain", env=ENV, rebuild_attempts=1)
    await runner.start(file=str(tmp_path / "once"))

    with pytest.raises(RankDied):
        await runner.invoke()
    with pytest.raises(PoolBroken, match="the weights are gone") as broken:
        await runner.invoke()

    assert [type(reason) for reason in broken.value.reasons] == [SetupFailed]
    assert runner.status().state is RunnerState.BROKEN
    assert not runner.is_alive()
    await runner.start(file=str(tmp_path / "another"))
    assert runner.is_alive()
    await runner.stop()


async def test_a_runner_can_be_stopped_at_any_moment_of_a_rebuild_and_started_again():
    runner = DistributedRunner(TOOLBOX, env=ENV)
    for turns in (0, 1, 2, 3, 5, 8, 20, 100):
        await runner.start()
        os.kill(runner.status().ranks[0].pid, signal.SIGKILL)
        while runner.status().state is not RunnerState.REBUILDING:
            await asyncio.to_thread(os.sched_yield)

        for _ in range(turns):
            await asyncio.to_thread(os.sched_yield)
        await runner.stop()

        assert runner.status().state is RunnerState.STOPPED
        assert runner.status().ranks == ()


async def test_listeners_that_raise_harm_nobody_and_are_told_of(caplog: pytest.LogCaptureFixture):
    def refuse(_: object) -> None:
        raise ZeroDivisionError

    async with DistributedRunner(TOOLBOX, env=ENV, on_log=refuse, on_change=refuse) as runner:
        await runner.invoke({"do": "talk"})
        with pytest.raises(RankDied):
            await runner.invoke({"do": "die", "rank": 0, "how": "exit"})
        assert await runner.invoke({"do": "all_reduce"}) == 1.0

    assert {"on_log raised", "on_change raised"} <= {record.message for record in caplog.records}


async def test_ranks_that_die_idle_are_rebuilt_and_those_that_die_again_before_serving_break_the_pool():
    states: asyncio.Queue[RunnerState] = asyncio.Queue()
    runner = DistributedRunner(
        TOOLBOX, env=ENV, rebuild_attempts=1, on_change=lambda status: states.put_nowait(status.state)
    )
    await runner.start()

    async def kill_idle() -> RunnerState:
        os.kill(runner.status().ranks[0].pid, signal.SIGKILL)
        while (state := await states.get()) not in (RunnerState.REBUILDING, RunnerState.BROKEN):
            pass
        while state is RunnerState.REBUILDING:
            state = await states.get()
        return state

    assert await kill_idle() is RunnerState.WARM
    assert await kill_idle() is RunnerState.BROKEN
    with pytest.raises(PoolBroken) as broken:
        await runner.invoke({"do": "all_reduce"})
    assert [type(reason) for reason in broken.value.reasons] == [RankDied, RankDied]
    await runner.stop()


async def test_ranks_that_the_machine_cannot_start_again_break_the_pool_and_no_call_waits_for_ever(
    pids: Pids, monkeypatch: pytest.MonkeyPatch
):
    runner = DistributedRunner(TOOLBOX, env=ENV, rebuild_attempts=1)
    await runner.start()

    # No folder for the sockets: what a full disk or a lack of descriptors does, and no error of the runner's own.
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    with pytest.raises(RankDied):
        await runner.invoke({"do": "die", "rank": 0, "how": "kill"})
    with pytest.raises(PoolBroken, match="FileNotFoundError") as broken:
        await runner.invoke({"do": "echo"})

    assert [type(reason) for reason in broken.value.reasons] == [SpawnFailed]
    assert runner.status().state is RunnerState.BROKEN
    monkeypatch.undo()
    await runner.start()
    assert await runner.invoke({"do": "all_reduce"}) == 1.0
    await runner.stop()
