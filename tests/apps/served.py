"""An app as callers of other services use it: words, files, a wait, a failure. It needs no ranks."""

from __future__ import annotations

import asyncio
import hashlib

from pydantic import BaseModel, Field

from stoker import App, File, endpoint
from stoker.compat.fal import toolkit
from tests.apps.well import is_there


class Words(BaseModel, extra="forbid"):
    text: str = Field(min_length=1, max_length=100)


class Answer(BaseModel):
    text: str
    file: File | None = None


class Bytes(BaseModel):
    file: File


class Digest(BaseModel):
    sha256: str
    size_bytes: int


class Seen(BaseModel):
    image: toolkit.Image


class Size(BaseModel):
    width: int
    height: int


class Patience(BaseModel):
    wait_for: str
    """A path: the job lasts until something is there."""


class Served(App):
    """Says, reads, waits and fails."""

    name = "tests/served"

    @endpoint("/")
    async def say(self, request: Words) -> Answer:
        self.log(f"saying {request.text}")
        for step in (1, 2):
            self.progress(step=step, total=2)
        content = request.text.encode()
        return Answer(text=request.text, file=File.from_bytes(content, content_type="text/plain", file_name="said.txt"))

    @endpoint("/digest")
    async def digest(self, request: Bytes) -> Digest:
        path = await self.fetch(request.file)
        content = await asyncio.to_thread(path.read_bytes)
        return Digest(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))

    @endpoint("/look")
    async def look(self, request: Seen) -> Size:
        picture = await asyncio.to_thread(request.image.to_pil)
        return Size(width=picture.width, height=picture.height)

    @endpoint("/wait", run_timeout=600)
    async def wait(self, request: Patience) -> Answer:
        self.log("waiting")
        self.progress(step=1, total=2)
        while not is_there(request.wait_for):  # noqa: ASYNC110 - a test's signal is a file
            await asyncio.sleep(0.02)
        return Answer(text="waited")

    @endpoint("/fail")
    async def fail(self, request: Words) -> Answer:
        raise ValueError(f"no such style: {request.text}")
