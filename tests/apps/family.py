"""Apps that call each other: a parent, and what it calls."""

from __future__ import annotations

import asyncio
import os

from pydantic import BaseModel

from stoker import App, File, endpoint
from stoker.errors import ChildFailed
from tests.apps.well import is_there


class Wish(BaseModel, extra="forbid"):
    text: str = ""
    wait_for: str | None = None
    """A path: the child does not end before something is there."""
    fail: bool = False


class Note(BaseModel):
    file: File


class Said(BaseModel):
    text: str
    file: File | None = None


class Heard(BaseModel):
    child: str
    file: File | None = None


class Count(BaseModel):
    calls: int


class Child(App):
    """Says what it was told, with a file; or fails."""

    name = "tests/child"

    @endpoint("/", run_timeout=600)
    async def say(self, wish: Wish) -> Said:
        self.log("at work")
        while not is_there(wish.wait_for):  # noqa: ASYNC110 - a test's signal is a file
            await asyncio.sleep(0.02)
        if wish.fail:
            raise ValueError("the child's own words")
        return Said(text=wish.text, file=File.from_bytes(wish.text.encode(), content_type="text/plain"))

    @endpoint("/read")
    async def read(self, note: Note) -> Said:
        return Said(text=await asyncio.to_thread(note.file.path.read_text))


class Parent(App):
    """Calls the child and passes on what it says."""

    name = "tests/parent"

    @endpoint("/", run_timeout=600, max_attempts=2)
    async def ask(self, wish: Wish) -> Heard:
        answer = await self.call("tests/child", wish)
        path = await self.fetch(answer["file"])
        self.log(f"the file says {await asyncio.to_thread(path.read_text)}")
        return Heard(child=answer["text"], file=answer["file"])

    @endpoint("/forgiving")
    async def forgive(self, wish: Wish) -> Heard:
        try:
            await self.call("tests/child", wish)
        except ChildFailed as error:
            return Heard(child=f"{error.child_id} {error.error_type} {error.error_message}")
        return Heard(child="nothing to forgive")

    @endpoint("/wrong")
    async def ask_wrongly(self, wish: Wish) -> Heard:
        return Heard(**await self.call("tests/child", {"txet": "misspelt"}))

    @endpoint("/impatient")
    async def give_up(self, wish: Wish) -> Heard:
        """Waits for its child until there is something beside what the child waits for."""
        call = asyncio.create_task(self.call("tests/child", wish))
        while not is_there(f"{wish.wait_for}.given-up"):  # noqa: ASYNC110 - a test's signal is a file
            await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.wait([call])
        return Heard(child="given up" if call.cancelled() else "in time")

    @endpoint("/note")
    async def write(self, wish: Wish) -> Heard:
        """Its child reads a file that it has made itself."""
        note = Note(file=File.from_bytes(wish.text.encode(), content_type="text/plain"))
        answer = await self.call("tests/child", note, "/read")
        return Heard(child=answer["text"], file=note.file)

    @endpoint("/within", run_timeout=600)
    async def ask_itself(self, wish: Wish) -> Heard:
        """Its child needs a seat of this same app."""
        answer = await self.call("tests/parent", wish, "/leaf")
        return Heard(child=answer["child"])

    @endpoint("/leaf")
    async def answer(self, wish: Wish) -> Heard:
        return Heard(child=wish.text)

    @endpoint("/bad-company")
    async def call_what_exits(self, wish: Wish) -> Heard:
        """Its child ends the process that both are served in."""
        await self.call("tests/parent", wish, "/exit")
        return Heard(child="nothing happened")

    @endpoint("/exit")
    async def leave(self, wish: Wish) -> Heard:
        os._exit(7)
