"""Calls on warm ranks: results, events, logs, turns."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import pathlib
from typing import Any

import pytest

from tests.distributed.conftest import ENV, TOOLBOX, LogBook
from worker_node.distributed import (
    AlreadyRunning,
    CallTimeout,
    DistributedRunner,
    NotRunning,
    RankEvent,
    RankLog,
    RunnerState,
    SerializationFailed,
)

pytestmark = pytest.mark.anyio


async def test_invoke_returns_the_result_of_rank_0_and_says_that_nobody_streams(pair: DistributedRunner):
    result = await pair.invoke({"do": "echo", "value": {"a": (1, 2)}})

    assert result["value"] == {"a": (1, 2)}
    assert result["streaming"] is False
    assert result["pid"] == pair.status().ranks[0].pid


async def test_start_hands_its_keyword_arguments_to_setup(single: DistributedRunner):
    assert (await single.invoke({"do": "echo"}))["setup"] == {"colour": "red"}


async def test_ranks_share_a_process_group(pair: DistributedRunner):
    assert await pair.invoke({"do": "all_reduce"}) == 2.0


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("scalar", {"loss": 0.5, "step": 3}),
        ("path", pathlib.Path("/weights/last.safetensors")),
        ("time", dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)),
        ("tuple", (1, (2, [3]))),
    ],
)
async def test_results_come_back_as_the_worker_made_them(single: DistributedRunner, what: str, expected: Any):
    assert await single.invoke({"do": "make", "what": what}) == expected


async def test_tensors_arrays_and_images_come_back_as_such(single: DistributedRunner):
    import torch

    assert torch.equal(await single.invoke({"do": "make", "what": "bfloat16"}), torch.arange(5, dtype=torch.bfloat16))
    assert (await single.invoke({"do": "make", "what": "array"})).dtype == ">i2"
    assert (await single.invoke({"do": "make", "what": "image"})).getpixel((2, 1)) == (1, 2, 3, 4)


async def test_a_payload_that_cannot_travel_never_reaches_the_ranks(single: DistributedRunner):
    with pytest.raises(SerializationFailed, match=r"value\[0\]"):
        await single.invoke({"do": "echo", "value": [object()]})


async def test_a_listener_that_awaits_gets_events_in_order_and_slows_the_worker(single: DistributedRunner):
    seen: list[int] = []

    async def listen(event: RankEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event.data["number"])

    await single.call({"do": "emit", "count": 3000, "ranks": [0]}, on_event=listen)

    assert seen == list(range(3000))


async def test_events_of_an_abandoned_stream_do_not_reach_the_next_one(single: DistributedRunner):
    async for _ in single.stream({"do": "event_until_cancelled"}):
        break

    streamed = [item async for item in single.stream({"do": "emit", "count": 2, "ranks": [0], "tag": "second"})]

    assert [item if isinstance(item, str) else item["tag"] for item in streamed] == ["second"] * 3


async def test_a_listener_that_raises_ends_the_call_and_not_the_runner(single: DistributedRunner):
    def listen(event: RankEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await single.call({"do": "event_until_cancelled"}, on_event=listen)

    assert await single.invoke({"do": "all_reduce"}) == 1.0


async def test_a_caller_that_goes_away_while_it_waits_leaves_the_queue_in_order(single: DistributedRunner):
    tasks = [asyncio.create_task(single.invoke({"do": "echo", "value": number})) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()

    first, *_, last = await asyncio.gather(*tasks, return_exceptions=True)

    assert (first["value"], last["value"]) == (0, 3)


async def test_the_wait_for_a_turn_counts_against_the_timeout_and_disturbs_nobody(single: DistributedRunner):
    stepping = asyncio.Event()
    running = asyncio.create_task(single.call({"do": "step_until_cancelled"}, on_event=lambda _: stepping.set()))
    await stepping.wait()

    with pytest.raises(CallTimeout, match="turn"):
        await single.invoke({"do": "echo"}, timeout=0.01)

    assert not running.done()
    await single.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_logs_and_output_of_ranks_reach_the_parents_logging_and_the_hook(
    pair: DistributedRunner, logs: LogBook, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "worker_node.distributed.rank")
    expected = {
        RankLog(rank, level, message)
        for rank in (0, 1)
        for level, message in [
            (logging.INFO, "a line of rank_print"),
            (logging.DEBUG, "a line for debugging"),
            (logging.WARNING, "a record of logging"),
            (logging.INFO, "a line of stdout"),
            (logging.WARNING, "a line of stderr"),
        ]
    }

    await pair.invoke({"do": "talk"})
    await logs.holds(expected)

    assert "[rank 1] a line of rank_print" in caplog.messages


async def test_ranks_have_torchruns_variables_and_nothing_of_the_runners(pair: DistributedRunner):
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RUNNER_LINK", "PYTHONPATH"]

    found = await pair.invoke({"do": "environment", "names": names})

    assert int(found.pop("MASTER_PORT")) > 1023
    assert found == {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "RUNNER_LINK": None,
        "PYTHONPATH": os.environ.get("PYTHONPATH"),
    }


async def test_coroutines_and_functions_run_beside_a_sync_call(single: DistributedRunner):
    assert await single.invoke({"do": "submitted"}) == [7, 4, True]


async def test_status_names_state_and_processes(pair: DistributedRunner):
    stepping = asyncio.Event()
    running = asyncio.create_task(pair.call({"do": "step_until_cancelled"}, on_event=lambda _: stepping.set()))
    await stepping.wait()

    busy = pair.status()
    await pair.cancel()
    await asyncio.gather(running, return_exceptions=True)
    idle = pair.status()

    assert (busy.state, [rank.state for rank in busy.ranks]) == (RunnerState.BUSY, ["busy", "busy"])
    assert (idle.state, [rank.state for rank in idle.ranks]) == (RunnerState.WARM, ["idle", "idle"])
    assert pair.is_alive()


async def test_starting_twice_is_refused(single: DistributedRunner):
    with pytest.raises(AlreadyRunning):
        await single.start()


async def test_calls_on_a_runner_that_was_not_started_are_refused():
    runner = DistributedRunner(TOOLBOX, env=ENV)

    with pytest.raises(NotRunning):
        await runner.invoke({"do": "echo"})
    with pytest.raises(NotRunning):
        runner.ensure_alive()
