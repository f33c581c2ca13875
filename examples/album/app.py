"""Album and Painter: two apps without a model. The album has pictures painted, puts them on a sheet and has it framed.

It shows calls of another app: several at once, their files fetched, and a file handed over that was just made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageOps
from pydantic import BaseModel, Field

from stoker import App, Image, endpoint

SIDE, MARGIN = 96, 8


class Subject(BaseModel, extra="forbid"):
    words: str = Field(min_length=1, max_length=200)
    number: int = Field(default=1, ge=1)


class Hanging(BaseModel, extra="forbid"):
    picture: Image


class Painted(BaseModel):
    picture: Image


class Wish(BaseModel, extra="forbid"):
    words: str = Field(min_length=1, max_length=200)
    pictures: int = Field(default=3, ge=1, le=20)


class Painter(App):
    """Paints circles, the same ones for the same words, and frames what it is given."""

    name = "examples/painter"

    @endpoint("/", run_timeout=60)
    async def paint(self, subject: Subject) -> Painted:
        """One picture."""
        return Painted(picture=Image.from_picture(await asyncio.to_thread(circles, subject)))

    @endpoint("/frame", run_timeout=60)
    async def frame(self, hanging: Hanging) -> Painted:
        """The picture with a frame around it."""
        return Painted(picture=Image.from_picture(await asyncio.to_thread(framed, hanging.picture.path)))


class Album(App):
    """Makes a sheet of several pictures about your words."""

    name = "examples/album"

    @endpoint("/", run_timeout=600, max_attempts=2)
    async def make(self, wish: Wish) -> Painted:
        """Have all pictures painted at once, and the sheet framed."""
        subjects = [Subject(words=wish.words, number=number) for number in range(1, wish.pictures + 1)]
        painted = await asyncio.gather(*(self.call("examples/painter", subject) for subject in subjects))
        paths = [await self.fetch(answer["picture"]) for answer in painted]
        self.log(f"{len(paths)} pictures are painted")
        whole = await asyncio.to_thread(sheet, paths)
        answer = await self.call("examples/painter", Hanging(picture=Image.from_picture(whole)), "/frame")
        await self.fetch(answer["picture"])  # returned with its bytes, it is an output of this job as well
        return Painted(picture=answer["picture"])


def circles(subject: Subject) -> PIL.Image.Image:
    """A picture that its subject alone decides."""
    chance = random.Random(f"{subject.words} {subject.number}")
    picture = PIL.Image.new("RGB", (SIDE, SIDE), "white")
    brush = PIL.ImageDraw.Draw(picture)
    for _ in range(5):
        x, y, radius = (chance.randrange(SIDE) for _ in range(3))
        colour = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        brush.ellipse((x - radius / 4, y - radius / 4, x + radius / 4, y + radius / 4), fill=colour)
    return picture


def sheet(paths: Sequence[Path]) -> PIL.Image.Image:
    """The pictures side by side."""
    whole = PIL.Image.new("RGB", (SIDE * len(paths), SIDE), "white")
    for place, path in enumerate(paths):
        with PIL.Image.open(path) as picture:
            whole.paste(picture, (SIDE * place, 0))
    return whole


def framed(path: Path) -> PIL.Image.Image:
    """The picture within a margin."""
    with PIL.Image.open(path) as picture:
        return PIL.ImageOps.expand(picture, border=MARGIN, fill="black")
