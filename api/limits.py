"""Limits of what a request may carry, kept by counting bytes: a Content-Length can lie or be absent.

What is too much is read and thrown away for a while before the answer goes out: a client that is still sending when
its connection closes would see a broken pipe in place of the problem.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import refusal
from stoker.errors import PayloadTooLarge

DISCARD_BYTES = 100_000_000
DISCARD_S = 10.0


class BodyLimit:
    """Answers 413 to a body over ``max_bytes``. Paths in ``streamed`` keep limits of their own while they store.

    One that ends in a slash stands for all below it.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, streamed: Collection[str]) -> None:
        self._app, self._max_bytes, self._streamed = app, max_bytes, frozenset(streamed)
        self._streamed_below = tuple(path for path in streamed if path.endswith("/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path in self._streamed or path.startswith(self._streamed_below):
            await self._app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self._max_bytes:
            await discard(receive)
            answer = refusal(self._too_large(), scope, {"connection": "close"})
            await answer(scope, receive, send)
            return
        counted = 0

        async def count() -> Message:
            nonlocal counted
            message = await receive()
            if message["type"] == "http.request":
                counted += len(message.get("body", b""))
                if counted > self._max_bytes:
                    if message.get("more_body", False):
                        await discard(receive)
                    # The one kind of exception that the framework's body parser lets through.
                    raise HTTPException(413, str(self._too_large()), {"connection": "close"})
            return message

        await self._app(scope, count, send)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"the body has more than {self._max_bytes} bytes")


async def discard(receive: Receive) -> None:
    """Read the rest of a body for nothing, within bounds."""
    counted = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while counted < DISCARD_BYTES:
                message = await receive()
                counted += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
