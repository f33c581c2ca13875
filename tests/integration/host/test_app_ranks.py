"""Calls that use ranks: started lazily, streamed, cancelled in step, rebuilt after a death."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from PIL import Image as Pil

from stoker.errors import AppError, CollectiveFailed, GpuFailed, JobCancelled, OutOfMemory, WorkerCrashed
from stoker.events import EventKind
from tests.integration.host.conftest import Hosted, Serve

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def ranked_host(shared: Serve) -> Hosted:
    return await shared("Ranked")


@pytest.fixture
async def ranked(ranked_host: Hosted) -> Hosted:
    """An app with two warm ranks, with no memory of other tests."""
    await ranked_host.host.warm_up()
    await ranked_host.until(lambda: ranked_host.host.status.runner == "warm")
    ranked_host.forget()
    return ranked_host


async def test_ranks_start_with_the_first_call_and_stay_warm_for_the_next(serve: Serve) -> None:
    ranked = await serve("Ranked", STOKER_RANKED_WORD="set for this node")
    before = ranked.host.status

    first = await ranked.call()
    pids = ranked.host.status.rank_pids
    second = await ranked.call()

    assert (before.runner, before.rank_pids) == ("none", ())
    assert first.result == {"word": "set for this node", "calls": 1, "ranks": 2, "number": 3}
    assert (second.result["calls"], ranked.host.status.rank_pids) == (2, pids)
    assert (first.warm, second.warm, second.cold_start_s) == (False, True, 0.0)
    assert first.cold_start_s > 0
    assert second.peak_memory_bytes > 0
    steps = [event.data for event in ranked.events if event.kind is EventKind.PROGRESS]
    assert {(data["rank"], data["step"], data["total"]) for data in steps} == {
        (rank, step, 3) for rank in (0, 1) for step in (1, 2, 3)
    }


async def test_streamed_pictures_are_small_previews_and_returned_ones_are_files(ranked: Hosted, tmp_path: Path) -> None:
    extra = tmp_path / "notes.txt"
    extra.write_text("notes")

    await ranked.call(what="picture", number=0)
    result = await ranked.call(what="pictures", path=str(extra), number=0)

    previews = {event.rank: event for event in ranked.events if event.kind is EventKind.PREVIEW}
    preview = previews[0]
    assert previews.keys() == {0, 1}
    assert (preview.data["step"], preview.data["rank"]) == (7, 0)
    assert preview.data["image"]["url"].startswith("data:image/jpeg;base64,")
    assert len(preview.data["image"]["url"]) <= 20_000
    assert preview.data["image"]["width"] > preview.data["image"]["height"] > 0
    found = {each.pointer: each for each in result.files}
    assert set(found) == {"/pil", "/array", "/path"}
    assert Pil.open(found["/array"].path).size == (7, 6)
    assert found["/path"].path.read_text() == "notes"


async def test_an_exception_on_a_rank_names_the_rank_and_costs_no_restart(ranked: Hosted) -> None:
    before = (await ranked.call(number=0)).result["calls"]
    pids = ranked.host.status.rank_pids

    with pytest.raises(AppError, match="rank 1 raised LookupError: no such word") as caught:
        await ranked.call(what="raise", number=0)
    result = await ranked.call(number=0)

    assert caught.value.type_name == "LookupError"
    assert 'raise LookupError("no such word")' in caught.value.traceback
    assert result.result["calls"] == before + 2
    assert ranked.host.status.rank_pids == pids


async def test_a_rank_that_dies_in_mid_call_fails_that_call_and_the_next_one_works(ranked: Hosted) -> None:
    host_pid, pids = ranked.host.status.pid, set(ranked.host.status.rank_pids)

    with pytest.raises(WorkerCrashed, match="rank 1 exited with code -9"):
        await ranked.call(what="die")
    result = await ranked.call()

    assert result.result["calls"] == 1
    assert ranked.host.status.pid == host_pid
    assert not pids & set(ranked.host.status.rank_pids)


async def test_an_allocation_that_fails_is_a_crash_that_costs_no_restart(ranked: Hosted) -> None:
    pids = ranked.host.status.rank_pids

    with pytest.raises(OutOfMemory, match="rank 1 raised MemoryError: no room for the weights") as caught:
        await ranked.call(what="out of memory", number=0)
    await ranked.call(number=0)

    assert (caught.value.crash, caught.value.type_name) == (True, "MemoryError")
    assert "raise ERRORS[what]" in caught.value.traceback
    assert ranked.host.status.rank_pids == pids


@pytest.mark.parametrize(("what", "kind"), [("gpu", GpuFailed), ("gloo", CollectiveFailed)])
async def test_ranks_that_would_fail_every_call_are_replaced(ranked: Hosted, what: str, kind: type[AppError]) -> None:
    """Their processes live: nobody but the error itself says that they are of no use."""
    pids = set(ranked.host.status.rank_pids)

    with pytest.raises(kind) as caught:
        await ranked.call(what=what, number=0)
    result = await ranked.call(number=0)

    assert caught.value.crash
    assert result.result["calls"] == 1
    assert not pids & set(ranked.host.status.rank_pids)


async def test_a_cancel_stops_ranks_in_step_and_keeps_them_warm(ranked: Hosted, tmp_path: Path) -> None:
    before = (await ranked.call(number=0)).result["calls"]
    pids = ranked.host.status.rank_pids
    call = asyncio.create_task(ranked.call(call_id="mine", what="wait", path=str(tmp_path / "never")))
    await ranked.until(lambda: len(ranked.events) == 6)
    busy = ranked.host.can_start(True)

    await ranked.host.cancel("mine")
    with pytest.raises(JobCancelled):
        await call
    await ranked.until(lambda: ranked.host.status.runner == "warm")

    assert not busy
    assert ranked.host.can_start(True)
    assert (await ranked.call()).result["calls"] == before + 2
    assert ranked.host.status.rank_pids == pids


async def test_ranks_that_do_not_hear_a_cancel_are_replaced_in_the_background(ranked: Hosted, tmp_path: Path) -> None:
    host_pid, pids = ranked.host.status.pid, set(ranked.host.status.rank_pids)
    call = asyncio.create_task(ranked.call(call_id="mine", what="hang", path=str(tmp_path / "never")))
    await ranked.until(lambda: len(ranked.events) == 6)

    await ranked.host.cancel("mine")
    with pytest.raises(JobCancelled):
        await call

    assert (await ranked.call()).result["calls"] == 1
    assert ranked.host.status.pid == host_pid
    assert not pids & set(ranked.host.status.rank_pids)


async def test_an_endpoint_without_gpus_works_while_the_ranks_are_busy(ranked: Hosted, tmp_path: Path) -> None:
    signal = tmp_path / "go"
    call = asyncio.create_task(ranked.call(what="wait", path=str(signal)))
    await ranked.until(lambda: len(ranked.events) == 6)

    light = await ranked.call("/light", what="light")
    free = ranked.host.can_start(False), ranked.host.can_start(True)
    signal.touch()

    assert light.result == {"what": "light"}
    assert free == (True, False)
    assert (await call).result["number"] == 3
    with pytest.raises(AppError, match="/light may not call run"):
        await ranked.call("/light", what="cheat")


async def test_a_setup_that_fails_says_why_and_is_tried_again(serve: Serve, tmp_path: Path) -> None:
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    ranked = await serve("Ranked", world_size=1, STOKER_RANKED_BROKEN=str(obstacle))

    with pytest.raises(AppError, match="the weights are not there"):
        await ranked.host.warm_up()
    obstacle.unlink()

    assert (await ranked.call()).result["calls"] == 1
