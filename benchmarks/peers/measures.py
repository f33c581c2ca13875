"""Measures of a runner through the interface that ours and fal's share. They return samples and judge nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from benchmarks.peers.work import touched

Hear = Callable[[dict[str, Any]], None]
Listen = Callable[[dict[str, Any], Hear], Awaitable[None]]


class Runner(Protocol):
    """The part of the interface that is measured."""

    async def invoke(self, payload: dict[str, Any] = ...) -> Any:
        """Run a call."""

    def stream(self, payload: dict[str, Any] = ...) -> AsyncIterator[Any]:
        """Run a call and yield its events."""


async def times_ms(count: int, act: Callable[[], Awaitable[object]]) -> list[float]:
    """Run ``act`` so often and return how long each took."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def through_stream(runner: Runner) -> Listen:
    """Hear events as ``stream()`` yields them."""

    async def listen(payload: dict[str, Any], hear: Hear) -> None:
        async for item in runner.stream(payload):
            # The last item is the result.
            if isinstance(item, dict) and "number" in item:
                hear(item)

    return listen


async def latencies_ms(listen: Listen, count: int, pace_s: float) -> list[float]:
    """Return for each of paced events the time from the worker to the caller."""
    taken = []

    def hear(event: dict[str, Any]) -> None:
        taken.append((time.monotonic() - event["sent"]) * 1000)

    await listen({"do": "events", "tag": "paced", "count": count, "pace_s": pace_s}, hear)
    return taken


async def burst(listen: Listen, count: int, *, flush: bool = False) -> dict[str, float]:
    """Send as many events as fast as they go, then an empty call: events a second, how many of the burst were lost,
    out of order, or came in the other call.
    """
    heard: list[dict[str, Any]] = []
    began = last = time.perf_counter()

    def hear(event: dict[str, Any]) -> None:
        nonlocal last
        heard.append(event)
        last = time.perf_counter()

    await listen({"do": "events", "tag": "burst", "count": count, "flush": flush}, hear)
    numbers = [event["number"] for event in heard if event["tag"] == "burst"]
    others: list[dict[str, Any]] = []
    # Long enough for what was left behind to come out.
    await listen({"do": "events", "tag": "after", "count": 3, "pace_s": 0.05}, others.append)
    return {
        "rate": len(heard) / (last - began),
        "lost": count - len(set(numbers)),
        "disordered": sum(later <= earlier for earlier, later in itertools.pairwise(numbers)),
        "foreign": sum(event["tag"] != "after" for event in others) + len(heard) - len(numbers),
    }


async def results_ms(runner: Runner, count: int, size_bytes: int) -> list[float]:
    """Return how long results of that size take until the caller has read them."""

    async def act() -> None:
        assert touched(await runner.invoke({"do": "result", "size_bytes": size_bytes})) == size_bytes

    # The first makes the tensor, and imports torch into this process.
    await act()
    return await times_ms(count, act)


async def payloads_ms(runner: Runner, count: int, size_bytes: int) -> list[float]:
    """Return how long payloads of that size take until the ranks have read them and answered."""
    import torch

    payload = {"do": "take", "data": torch.ones(size_bytes, dtype=torch.uint8)}

    async def act() -> None:
        assert await runner.invoke(payload) == size_bytes

    await act()
    return await times_ms(count, act)
