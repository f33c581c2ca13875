"""A row of the table: of which kind, called what, how the request is made, and what must come back.

Acts are in ``acts``, what must come back in ``refusals``; the rows themselves in ``kinds``, a file for each kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tests.integration.security.world import World

HUSH = "hush-w9d1x"
"""Stands in all that a row sends as a secret of its own: no log may hold it."""


class Act(Protocol):
    async def __call__(self, world: World) -> Any: ...


class Refusal(Protocol):
    stores: frozenset[str]
    """Tables in which this may leave a row: none, but for the job that is refused where it runs."""

    def __call__(self, world: World, came: Any) -> None: ...


@dataclass(frozen=True)
class Row:
    kind: str
    name: str
    act: Act
    refusal: Refusal

    @property
    def id(self) -> str:
        return f"{self.kind}: {self.name}"


def rows(kind: str, *each: tuple[str, Act, Refusal]) -> tuple[Row, ...]:
    """The rows of one kind."""
    return tuple(Row(kind, *one) for one in each)
