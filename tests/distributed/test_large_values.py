"""Values large enough to go through shared memory: the same bits, each receiver its own, nothing left behind."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.far_end import mappings
from worker_node.distributed import CallTimeout, DistributedRunner, RankEvent
from worker_node.distributed.segments import ALONE_BYTES

pytestmark = pytest.mark.anyio

SIZE_BYTES = ALONE_BYTES + 4096


def numbers() -> np.ndarray:
    return np.arange(SIZE_BYTES, dtype=np.uint8) % 100


def descriptors(pid: int | str) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


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


async def test_large_values_leave_no_descriptor_behind(single: DistributedRunner):
    rank = single.status().ranks[0].pid

    async def open_files() -> list[int]:
        # An answer may be here before its rank has let go of it; a rank that serves the next call has.
        await single.invoke({"do": "all_reduce"})
        return [descriptors(pid) for pid in ("self", rank)]

    await single.invoke({"do": "double", "numbers": numbers()})
    before = await open_files()
    for _ in range(5):
        await single.invoke({"do": "double", "numbers": numbers()})

    assert await open_files() == before


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
