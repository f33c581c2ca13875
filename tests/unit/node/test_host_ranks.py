"""What a supervisor knows of an app's ranks, and when it takes them for gone."""

from __future__ import annotations

import asyncio

import pytest

from worker_node import host_ranks
from worker_node.apphost.protocol import Message
from worker_node.host_ranks import HostRanks

pytestmark = pytest.mark.anyio


async def others_had_their_turn() -> None:
    """Whatever can go on in the loop without waiting has done so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_late_answer_to_a_former_eviction_is_none_to_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_ranks, "VACATE_S", 0)
    sent: list[Message] = []
    ranks = HostRanks("an app", sent.append)
    ranks.came_up()
    ranks.place([0])
    was_answered = await ranks.vacate()
    monkeypatch.setattr(host_ranks, "VACATE_S", 60)
    ranks.place([1])
    leaving = asyncio.create_task(ranks.vacate())
    await others_had_their_turn()

    ranks.vacated()
    await others_had_their_turn()
    after_one = leaving.done()
    ranks.vacated()

    assert (was_answered, after_one) == (False, False)
    assert await leaving


async def test_a_process_that_ends_owes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_ranks, "VACATE_S", 0)
    ranks = HostRanks("an app", lambda _: None)
    ranks.came_up()
    await ranks.vacate()
    ranks.went_down(RuntimeError("gone"))
    monkeypatch.setattr(host_ranks, "VACATE_S", 60)
    ranks.came_up()
    leaving = asyncio.create_task(ranks.vacate())
    await others_had_their_turn()

    ranks.vacated()

    assert await leaving
