"""How a process of the benchmark serves: one line of JSON is an order, one the answer, while its event loop goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

from benchmarks.api_load.cores import Share
from benchmarks.peers.lines import Asked

Order = Callable[..., Awaitable[dict[str, Any]]]


def serve(make: Callable[[], Awaitable[Mapping[str, Order]]]) -> None:
    """Answer until standard input ends. Each answer says which share of a core its order took."""
    uvloop.run(_serve(make))


async def _serve(make: Callable[[], Awaitable[Mapping[str, Order]]]) -> None:
    asked, orders = Asked(), await make()
    while (order := await asyncio.to_thread(next, asked, None)) is not None:
        share = Share(os.getpid())
        answer = await orders[order.pop("do")](**order)
        asked.answer({**answer, "cpu_share": share.now()})
