"""Server-Sent Events as a client reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support.patience import PATIENCE_S, waiting_for


@dataclass(frozen=True)
class Frame:
    event: str | None = None
    id: str | None = None
    data: Any = None
    retry: int | None = None
    comment: str | None = None


@asynccontextmanager
async def events(client: httpx2.AsyncClient, path: str, **kwargs: Any) -> AsyncIterator[AsyncIterator[Frame]]:
    async with client.stream("GET", path, **kwargs) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _patiently(frames(answer))


async def frames(answer: httpx2.Response) -> AsyncIterator[Frame]:
    fields: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        if not line:
            if fields:
                yield Frame(**fields)
            fields = {}
        elif line.startswith(":"):
            fields["comment"] = line[1:].strip()
        else:
            name, _, value = line.partition(": ")
            fields[name] = json.loads(value) if name == "data" else int(value) if name == "retry" else value


async def _patiently(stream: AsyncIterator[Frame]) -> AsyncIterator[Frame]:
    """Fail where no event comes for ``PATIENCE_S`` of waiting, however many comments do."""
    last_id, left_s, clock = "none", PATIENCE_S, asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            async with waiting_for(f"an event, {PATIENCE_S:g} s after the last one: {last_id}", left_s):
                frame = await anext(stream)
        except StopAsyncIteration:
            return
        if frame.event is None:
            left_s -= clock() - began
        else:
            last_id, left_s = frame.id or frame.event, PATIENCE_S
        yield frame


async def named(stream: AsyncIterator[Frame]) -> AsyncIterator[Frame]:
    """Without comments and retry hints."""
    async for frame in stream:
        if frame.event is not None:
            yield frame


async def rest(stream: AsyncIterator[Frame]) -> list[Frame]:
    return [frame async for frame in named(stream)]
