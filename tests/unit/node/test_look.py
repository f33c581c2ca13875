"""What no doorbell has said: apps are asked one after the other, and none pays for another."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
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


async def test_an_app_that_cannot_be_asked_costs_the_others_no_turn() -> None:
    heard: deque[str] = deque()
    apps = {"a": Asked("a", fails=True), "b": Asked("b", jobs=2)}
    look = Look(*_parts(), apps, every_s=1, on_change=heard.append)  # type: ignore[arg-type]

    await look.turn()

    assert apps["b"].answered == [True, True, False]
    assert list(heard) == ["b"]


def _parts() -> tuple[Any, str, Any]:
    return None, "a node", SimpleNamespace()
