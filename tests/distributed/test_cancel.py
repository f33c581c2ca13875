"""Cancel in two stages: ranks that look stop in step and stay warm, others are killed and rebuilt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.distributed.conftest import ENV, TOOLBOX, ended
from worker_node.distributed import CallCancelled, DistributedRunner, RunnerState

pytestmark = pytest.mark.anyio

Pids = Callable[[DistributedRunner], list[int]]


async def begun(runner: DistributedRunner, **payload: object) -> asyncio.Task[object]:
    """Start a call and wait for its first event."""
    heard = asyncio.Event()
    call = asyncio.create_task(runner.call(payload, on_event=lambda _: heard.set()))
    await heard.wait()
    return call


async def test_ranks_that_vote_stop_at_the_same_step_and_stay_warm(pair: DistributedRunner, pids: Pids):
    before = pids(pair)
    call = await begun(pair, do="step_until_cancelled")

    await pair.cancel()

    assert pair.status().state is RunnerState.WARM
    with pytest.raises(CallCancelled):
        await call
    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert pids(pair) == before


async def test_at_world_size_1_adding_a_result_asks_too(single: DistributedRunner, pids: Pids):
    before = pids(single)
    call = await begun(single, do="event_until_cancelled")

    await single.cancel()

    with pytest.raises(CallCancelled):
        await call
    assert await single.invoke({"do": "all_reduce"}) == 1.0
    assert pids(single) == before


async def test_ranks_that_do_not_look_are_killed_and_the_next_call_works(pair: DistributedRunner, pids: Pids):
    before = pids(pair)
    call = await begun(pair, do="ignore_cancel")

    await pair.cancel()

    assert pair.status().state is RunnerState.REBUILDING
    assert pair.is_alive()
    with pytest.raises(CallCancelled):
        await call
    assert await pair.invoke({"do": "all_reduce"}) == 2.0
    assert not set(pids(pair)) & set(before)


async def test_a_cancel_touches_only_the_call_that_runs(single: DistributedRunner):
    call = await begun(single, do="step_until_cancelled")
    following = asyncio.create_task(single.invoke({"do": "echo", "value": 1}))

    await single.cancel()

    assert (await following)["value"] == 1
    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], CallCancelled)


async def test_a_cancel_with_no_call_does_nothing(single: DistributedRunner):
    await single.cancel()

    assert (await single.invoke({"do": "echo", "value": 2}))["value"] == 2


async def test_cancel_returns_though_the_streams_reader_does_not_come_back(single: DistributedRunner):
    stream = single.stream({"do": "step_until_cancelled"})
    assert await anext(stream) == "stepping"

    await single.cancel()

    assert single.status().state is RunnerState.WARM
    with pytest.raises(CallCancelled):
        await anext(stream)


Arrivals = Callable[[], "asyncio.Future[int]"]


@pytest.fixture
async def arrival(tmp_path: Path) -> AsyncIterator[Arrivals]:
    """The process id of the next interpreter that has imported the worker class, as a rank or to become one."""
    pipe = tmp_path / "arrivals"
    os.mkfifo(pipe)
    loop, come = asyncio.get_running_loop(), asyncio.Queue[int]()
    fd = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    loop.add_reader(fd, lambda: [come.put_nowait(int(pid)) for pid in os.read(fd, 4096).split()])
    yield lambda: asyncio.ensure_future(come.get())
    loop.remove_reader(fd)
    os.close(fd)


async def test_what_may_have_to_be_replaced_is_begun_in_the_grace_and_used_or_ended(
    arrival: Arrivals, pids: Pids, tmp_path: Path
):
    env = ENV | {"TESTS_ARRIVALS": str(tmp_path / "arrivals")}
    told = tmp_path / "told"
    os.mkfifo(told)
    async with DistributedRunner(TOOLBOX, 1, env=env, grace_s=4.0) as runner:
        first = await arrival()
        call = await begun(runner, do="step_when_told", file=str(told))
        cancelling = asyncio.create_task(runner.cancel())
        in_vain = os.pidfd_open(await arrival())
        await asyncio.to_thread(told.write_text, "!")
        await cancelling

        assert (runner.status().state, pids(runner)) == (RunnerState.WARM, [first])
        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], CallCancelled)
        await ended(in_vain)

        call = await begun(runner, do="ignore_cancel")
        await runner.cancel()
        next_call = asyncio.create_task(runner.invoke({"do": "all_reduce"}))

        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], CallCancelled)
        assert await next_call == 1.0
        assert pids(runner) == [await arrival()]
        assert runner.status().restarts == 1
