"""Apps that disturb whatever shares a thread or a process with them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from pydantic import BaseModel

from stoker import App, endpoint


class Until(BaseModel):
    path: str


class Nothing(BaseModel):
    pass


def is_there(path: str) -> bool:
    return Path(path).exists()


def wait_in_the_loop(path: str) -> None:
    while not is_there(path):
        time.sleep(0.02)


class Blocker(App):
    """Blocks its event loop until a file is there."""

    name = "tests/blocker"

    @endpoint("/", run_timeout=600)
    async def block(self, request: Until) -> Nothing:
        self.log("blocking")
        wait_in_the_loop(request.path)
        return Nothing()


class Exiter(App):
    """Ends its process in the middle of a call, without a word."""

    name = "tests/exiter"

    @endpoint("/")
    async def leave(self, request: Nothing) -> Nothing:
        os._exit(7)

    @endpoint("/linger")
    async def linger(self, request: Until) -> Nothing:
        self.log("lingering")
        while not is_there(request.path):  # noqa: ASYNC110 - a test's signal is a file
            await asyncio.sleep(0.02)
        return Nothing()

    @endpoint("/stay")
    async def stay(self, request: Nothing) -> Nothing:
        return request


class Failing(App):
    """Raises."""

    name = "tests/failing"

    @endpoint("/")
    async def fail(self, request: Nothing) -> Nothing:
        raise ValueError("the app's own words")
