"""What no doorbell has said: apps are asked one after the other, and none pays for another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from worker_node.look import Look

pytestmark = pytest.mark.anyio


@dataclass
class Asked:
    """Stands for an app's executor, with so many jobs; or one that fails."""

    app: str
    jobs: int = 0
    fails: bool = False
    lacks_slots: bool = False
    lacks_more_than_slots: bool = False
    answered: list[bool] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        if self.fails:
            raise KeyError(False)
        return True

    async def answer(self) -> str | None:
        self.answered.append(self.jobs > 0)
        self.jobs -= 1
        return "work" if self.answered[-1] else None


class Told:
    """Stands for the placement: keeps what it is told of who waits."""

    def __init__(self) -> None:
        self.waits_for: dict[str, float | None] = {}

    def waits(self, app: str, for_s: float | None) -> None:
        self.waits_for[app] = for_s


async def test_an_app_that_cannot_be_asked_costs_the_others_no_turn() -> None:
    heard: deque[str] = deque()
    apps = {"a": Asked("a", fails=True), "b": Asked("b", jobs=2)}
    look = look_at(Told(), apps, on_change=heard.append)

    await look.turn()

    assert apps["b"].answered == [True, True, False]
    assert list(heard) == ["b"]


async def test_jobs_that_could_not_be_claimed_though_there_were_slots_wait_for_none() -> None:
    placement = Told()
    apps = {"a": Asked("a", lacks_more_than_slots=True), "b": Asked("b")}

    await look_at(placement, apps).turn()

    assert placement.waits_for == {"a": None}


def look_at(placement: Told, apps: dict[str, Asked], on_change: Callable[[str], None] = lambda _: None) -> Look:
    db: Any = None  # whose jobs nobody asks for
    executors: Any = apps
    room: Any = placement
    return Look(db, "a node", room, executors, every_s=1, on_change=on_change)
