"""Placement: what is decided about slots, carried out on app hosts that do as a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.patience import waiting_for
from worker_node import placement
from worker_node.placement import Placement
from worker_node.slots import Slots

pytestmark = pytest.mark.anyio


class Ranks:
    """Stands for an app's host: it ends its ranks as it is told to, and keeps where they are placed."""

    def __init__(self) -> None:
        self.status = SimpleNamespace(runner="none")
        self.ends: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.asked = asyncio.Semaphore(0)
        self.placed: asyncio.Event = asyncio.Event()

    def place(self, _: object, *, stay_warm: bool = False) -> None:
        self.placed.set()

    async def are_asked(self) -> None:
        """Wait until they are to end, once more."""
        async with waiting_for("somebody to end them", 20):
            await self.asked.acquire()

    async def vacate(self) -> None:
        self.asked.release()
        error = await self.ends.get()
        if error is not None:
            raise error


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(placement, "pause_before", lambda _: 0.0)
    return


async def test_slots_are_given_on_when_the_last_process_has_left_them_and_not_when_ending_it_failed() -> None:
    hosts = {"a": Ranks(), "b": Ranks()}
    without_slots: asyncio.Queue[str] = asyncio.Queue()
    room = one_slot(hosts, on_no_slots=without_slots.put_nowait)
    evict(room)

    for _ in range(2):
        await hosts["a"].are_asked()
        hosts["a"].ends.put_nowait(OSError("still there"))
    await hosts["a"].are_asked()
    given_back = [without_slots.get_nowait()]
    room.ends("b")
    then = (hosts["b"].placed.is_set(), room.slots_of("a"), room.is_stuck("a"), room.could_take("b"), room.take("b"))
    hosts["a"].ends.put_nowait(None)
    while not room.take("b"):
        room.stirred.clear()
        await room.stirred.wait()
    room.keep("b")
    await hosts["b"].placed.wait()

    assert given_back == ["b"], "its job is another node's"
    assert without_slots.empty()
    assert then == (False, [0], True, False, False)
    assert (room.slots_of("a"), room.slots_of("b"), room.is_stuck("a")) == ([], [0], False)


async def test_a_node_that_ends_does_not_wait_for_ranks_that_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "pause_before", lambda _: 3600.0)
    hosts = {"a": Ranks(), "b": Ranks()}
    room = one_slot(hosts)
    evict(room)
    hosts["a"].ends.put_nowait(OSError("still there"))

    await room.settle()

    assert not hosts["b"].placed.is_set()


def one_slot(hosts: dict[str, Ranks], on_no_slots: Callable[[str], None] = lambda _: None) -> Placement:
    slots = Slots(1, 0.0)  # nobody's turn lasts longer than a job
    for app in hosts:
        slots.add(app, 1)
    apps: Any = hosts
    return Placement(
        slots, apps, are_gpus=False, on_change=lambda _: None, on_eviction=lambda _: None, on_no_slots=on_no_slots
    )


def evict(room: Placement) -> None:
    """Have a job of a come and go, and one of b need its slot."""
    assert room.take("a")
    room.keep("a")
    room.ends("a")
    assert room.take("b")
    room.keep("b")
