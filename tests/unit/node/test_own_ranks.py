"""Ranks that an app's own ``setup`` makes: when it is done, where its runners may be, what is left of the last one."""

from __future__ import annotations

import asyncio
import logging

import pytest

from stoker.compat import fal
from tests.apps.ported import Request
from worker_node.apphost.own_ranks import OwnRanks
from worker_node.distributed import NotRunning, RankFailed, RankLog
from worker_node.distributed.hooks import Hooks

pytestmark = pytest.mark.anyio


class Counting(fal.App):
    num_gpus = 2
    begun = 0
    refuses = False

    async def setup(self) -> None:
        type(self).begun += 1
        self.gate = asyncio.Event()
        if self.refuses:
            raise ValueError("no weights")
        await asyncio.sleep(0)

    @fal.endpoint("/")
    async def answer(self, request: Request) -> dict:
        return {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    Counting.begun, Counting.refuses = 0, False


def made(environ: dict[str, str] | None = None) -> tuple[OwnRanks, Counting, list[str]]:
    app, told = Counting(), []
    given = {} if environ is None else environ
    ranks = OwnRanks(
        app, given, on_change=lambda state, _: told.append(state), on_log=lambda log: told.append(log.message)
    )
    return ranks, app, told


def failed(type_name: str, message: str) -> RankFailed:
    return RankFailed(rank=0, type_name=type_name, message=message, traceback="")


async def test_setup_is_done_once_for_all_calls_that_come() -> None:
    ranks, _, told = made()
    ranks.place(None)

    first, second = await asyncio.gather(ranks.ready_for_call(), ranks.ready_for_call())
    third = await ranks.ready_for_call()

    assert (Counting.begun, told) == (1, ["starting", "warm"])
    assert (first.was_warm, second.was_warm, third.was_warm) == (False, False, True)
    assert first.cold_start_s > 0
    assert third.cold_start_s == 0


async def test_without_a_place_nothing_is_set_up() -> None:
    ranks, _, _ = made()

    with pytest.raises(NotRunning):
        await ranks.warm_up()

    assert Counting.begun == 0


async def test_after_they_had_to_leave_setup_is_done_again_on_an_app_as_it_was() -> None:
    ranks, app, told = made()
    ranks.place(None)
    await ranks.warm_up()

    await ranks.stop(1)
    left = vars(app).keys() & {"gate", "runner"}
    ranks.place(None)
    await ranks.warm_up()

    assert (left, Counting.begun) == (set(), 2)
    assert told == ["starting", "warm", "none", "starting", "warm"]


async def test_a_setup_that_failed_is_tried_again_by_the_next_call() -> None:
    ranks, _, told = made()
    ranks.place(None)
    Counting.refuses = True
    with pytest.raises(ValueError, match="no weights"):
        await ranks.warm_up()
    Counting.refuses = False

    await ranks.warm_up()

    assert (Counting.begun, told) == (2, ["starting", "none", "starting", "warm"])


async def test_ranks_that_would_fail_every_call_are_made_anew_for_the_next() -> None:
    ranks, _, _ = made()
    ranks.place(None)
    await ranks.warm_up()

    ranks.call_failed(ValueError("no such style"))
    ranks.call_failed(failed("ValueError", "no such style"))
    still = await ranks.ready_for_call()
    ranks.call_failed(failed("AcceleratorError", "CUDA error: an illegal memory access was encountered"))
    anew = await ranks.ready_for_call()

    assert (still.was_warm, anew.was_warm, Counting.begun) == (True, False, 2)


async def test_a_call_that_is_given_up_leaves_the_setup_to_the_next() -> None:
    ranks, _, _ = made()
    ranks.place(None)
    given_up = asyncio.create_task(ranks.warm_up())
    await asyncio.sleep(0)
    given_up.cancel()

    await ranks.warm_up()

    assert Counting.begun == 1


@pytest.mark.parametrize(
    ("visible", "devices", "seen"),
    [
        (None, [2, 3], "2,3"),
        ("4,5,6", [0, 2], "4,6"),
        ("4,5", [], ""),
        ("4,5", None, "4,5"),
        (None, None, None),
    ],
)
async def test_runners_see_the_gpus_of_their_place(
    visible: str | None, devices: list[int] | None, seen: str | None
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    ranks, _, _ = made(environ)

    ranks.place([1])
    ranks.place(devices)

    assert environ.get("CUDA_VISIBLE_DEVICES") == seen


def test_what_ranks_of_a_runner_of_the_apps_own_say_is_heard() -> None:
    _, _, told = made()

    Hooks(None, None).log(RankLog(1, logging.WARNING, "50 % done"))

    assert told == ["50 % done"]
