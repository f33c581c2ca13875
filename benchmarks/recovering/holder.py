"""An app whose jobs say when they were entered, and last until somebody puts a file where they look."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from pydantic import BaseModel

from stoker import App, File, endpoint

LOOK_S = 0.02


class Nothing(BaseModel):
    pass


class Hold(BaseModel):
    entered: str
    """A file that gets a line with the time at each entry."""
    until: str
    log_every_s: float = 0.5


class Held(BaseModel):
    entered_at: float
    file: File | None = None


def note(file: Path, moment: float) -> None:
    with file.open("a") as entries:
        entries.write(f"{moment}\n")


def is_there(file: Path) -> bool:
    return file.exists()


class Holder(App):
    """Needs no ranks: what is measured is the way to an app, not the app."""

    name = "benchmarks/holder"

    @endpoint("/")
    async def once(self, _: Nothing) -> Held:
        """Return at once."""
        return Held(entered_at=time.time())

    @endpoint("/hold", run_timeout=3600)
    async def hold(self, request: Hold) -> Held:
        """Log and wait, then return a file."""
        entered_at = time.time()
        note(Path(request.entered), entered_at)
        said = 0
        while not is_there(Path(request.until)):
            if time.time() - entered_at > said * request.log_every_s:
                self.log(f"still here, {said}")
                said += 1
            await asyncio.sleep(LOOK_S)
        self.log("last words")
        content = File.from_bytes(b"held", content_type="text/plain", file_name="held.txt")
        return Held(entered_at=entered_at, file=content)
