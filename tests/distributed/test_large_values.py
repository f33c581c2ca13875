"""Values large enough to go through shared memory: the same bits, each receiver its own, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.conftest import LogBook
from tests.distributed.far_end import mappings
from worker_node.distributed import CallTimeout, DistributedRunner, RankEvent, RankLog, dispatch, shelf
from worker_node.distributed.shelf import ALONE_BYTES, Shelf

pytestmark = pytest.mark.anyio

SIZE_BYTES = ALONE_BYTES + 4096


def numbers() -> np.ndarray:
    return np.arange(SIZE_BYTES, dtype=np.uint8) % 100


def kept(pid: int | str) -> int:
    """How many pieces of memory for large values a process has open."""
    return sum(name.startswith("/memfd:runner-frame") for name in open_files(pid))


def open_files(pid: int | str) -> list[str]:
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            names.append(str(link.readlink()))
    return names


async def test_what_is_kept_for_the_next_large_value_goes_back_when_none_comes(
    pair: DistributedRunner, logs: LogBook, monkeypatch: pytest.MonkeyPatch
):
    gone, tidy = asyncio.Event(), Shelf.tidy

    def watched(kept: Shelf) -> None:
        tidy(kept)
        if not kept:
            gone.set()

    monkeypatch.setattr(Shelf, "tidy", watched)
    monkeypatch.setattr(shelf, "KEPT_S", 0.05)
    monkeypatch.setattr(dispatch, "KEPT_S", 0.05)
    await pair.invoke({"do": "keep_memory", "kept_s": 0.05})

    await pair.invoke({"do": "double", "numbers": numbers()})

    await gone.wait()
    await logs.holds({RankLog(0, logging.INFO, "rank 0 keeps nothing")})
    # The rank has served nothing since: it has looked by itself.
    assert [kept("self"), *(kept(rank.pid) for rank in pair.status().ranks)] == [0, 0, 0]


async def test_every_rank_has_its_own_copy_and_the_callers_stays_as_it_was(pair: DistributedRunner):
    sent, seen = numbers(), []

    result = await pair.call({"do": "double", "numbers": sent, "as_event": True}, on_event=seen.append)

    assert np.array_equal(sent, numbers())
    assert result["before"] == int(sent.sum())
    assert np.array_equal(result["numbers"], sent * 2)
    assert sorted(event.data["rank"] for event in seen) == [0, 1]
    assert all(np.array_equal(event.data["numbers"], sent * 2) for event in seen)


async def test_what_comes_back_is_the_callers_own_and_can_be_written_to(single: DistributedRunner):
    first = (await single.invoke({"do": "double", "numbers": numbers()}))["numbers"]
    first[:] = 7
    second = (await single.invoke({"do": "double", "numbers": numbers()}))["numbers"]

    assert np.array_equal(second, numbers() * 2)
    assert (first == 7).all()


async def test_large_values_leave_no_descriptor_behind_but_of_what_is_kept(single: DistributedRunner):
    processes = ["self", single.status().ranks[0].pid]

    async def others() -> list[int]:
        # An answer may be here before its rank has let go of it; a rank that serves the next call has.
        await single.invoke({"do": "all_reduce"})
        return [len(open_files(pid)) - kept(pid) for pid in processes]

    await single.invoke({"do": "double", "numbers": numbers()})
    before = await others()
    for _ in range(5):
        await single.invoke({"do": "double", "numbers": numbers()})

    assert await others() == before
    # One, and another where the first was still in use.
    assert max(map(kept, processes)) <= 2


async def test_memory_of_large_values_is_not_left_to_the_garbage_collector(single: DistributedRunner):
    rank = single.status().ranks[0].pid
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            result = await single.invoke({"do": "double", "numbers": numbers()})
            held = mappings()
            del result
        await single.invoke({"do": "all_reduce"})

        assert (held, mappings(), mappings(rank)) == (1, 0, 0)
    finally:
        gc.enable()


async def test_a_large_event_that_nobody_took_is_no_part_of_the_next_call(single: DistributedRunner):
    def leave(_: RankEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await single.call({"do": "double", "numbers": numbers(), "as_event": True}, on_event=leave)
    result = await single.invoke({"do": "double", "numbers": numbers()})

    assert np.array_equal(result["numbers"], numbers() * 2)


async def test_a_large_payload_whose_time_is_over_before_it_is_sent_disturbs_nobody(single: DistributedRunner):
    with pytest.raises(CallTimeout):
        await single.invoke({"do": "double", "numbers": numbers()}, timeout=0.0)

    assert (await single.invoke({"do": "double", "numbers": numbers()}))["before"] == int(numbers().sum())
