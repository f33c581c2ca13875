"""The load generator's process: listeners to streams, polls, submits, bare inserts.

``python -m benchmarks.api_load.load``, orders in, answers out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.api_load.bare import Bare
from benchmarks.api_load.listeners import Listeners
from benchmarks.api_load.orders import Order, serve
from benchmarks.api_load.requests import paced, posts


class Followers:
    """The listeners' orders."""

    def __init__(self) -> None:
        self._listeners: Listeners | None = None

    @property
    def _all(self) -> Listeners:
        if self._listeners is None:
            raise ValueError("no stream was opened yet")
        return self._listeners

    async def open(
        self, ports: Sequence[int], key: str, jobs: Sequence[str], each: int, spread: bool = False
    ) -> dict[str, Any]:
        """Follow each job so many times."""
        self._listeners = Listeners(ports, key)
        await self._listeners.open(jobs, each, spread=spread)
        return {"open": len(self._listeners.all)}

    async def begin(self) -> dict[str, Any]:
        """Forget delays."""
        self._all.begin()
        return {}

    async def heard(self, at_least: Mapping[str, int], limit_s: float) -> dict[str, Any]:
        """Wait for so many of each kind at each listener; delays since ``begin``, and all that was wrong."""
        are_all_here = await self._all.until(limit_s, **at_least)
        wanted = {kind: least * len(self._all.all) for kind, least in at_least.items()}
        return {
            "are_all_here": are_all_here,
            "missing": {kind: wanted[kind] - self._all.total(kind) for kind in at_least},
            "out_of_order": self._all.total("out_of_order"),
            "reconnects": self._all.reconnects,
            "refused": self._all.refused,
            "outages_ms": self._all.outages_ms,
            "delays_ms": {kind: [1000 * each for each in delays] for kind, delays in self._all.delays.items()},
        }


async def make() -> Mapping[str, Order]:
    """Name the orders."""
    followers, bare = Followers(), Bare()
    return {
        "open": followers.open,
        "begin": followers.begin,
        "heard": followers.heard,
        "paced": paced,
        "posts": posts,
        "bare": bare.insert,
    }


if __name__ == "__main__":
    serve(make)
