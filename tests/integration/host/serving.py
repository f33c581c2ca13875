"""Apps whose hosts the tests start. Imported by an app host and by ranks, never by a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil
from pydantic import BaseModel, Field

from stoker import App, File, Image, endpoint
from stoker.app import current_call
from stoker.errors import InvalidInput
from worker_node.apphost import protocol
from worker_node.distributed import DistributedWorker


class Request(BaseModel):
    what: str = ""
    path: str = ""
    number: int = Field(default=3, ge=0, le=100)
    file: File | None = None
    more: list[File] = []


def is_there(path: str) -> bool:
    return Path(path).exists()


ERRORS = {
    "out of memory": MemoryError("no room for the weights"),
    "gpu": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "gloo": RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
}


class Worker(DistributedWorker):
    """Does on its rank what the request says."""

    def setup(self, word: str = "", broken: str = "") -> None:
        self.word, self.calls = word, 0
        if broken and is_there(broken):
            raise ValueError("the weights are not there")

    def __call__(self, what: str, path: str, number: int, streaming: bool = False, **more: Any) -> Any:
        from worker_node.diffusion.collectives import agree  # imports torch, which the app's process need not

        self.calls += 1
        last = self.rank == self.world_size - 1
        if what == "raise" and last:
            raise LookupError("no such word")
        if what in ERRORS and last:
            raise ERRORS[what]
        if what == "die" and last:
            os.kill(os.getpid(), signal.SIGKILL)
        for step in range(1, number + 1):
            self.raise_if_cancelled()
            self.add_streaming_result({"step": step, "total": number})
        if what == "wait":
            # Ranks may see the file at different moments: they leave the loop together.
            while not agree(is_there(path), self.world_size):
                self.raise_if_cancelled()
        if what == "hang":
            while not is_there(path):
                time.sleep(0.01)
        if what == "helper":
            return {"pid": subprocess.Popen(["sleep", "600"]).pid}
        if what == "picture":
            noise = np.random.default_rng(self.rank).integers(0, 255, (700, 900, 3), np.uint8)
            self.add_streaming_result({"step": 7, "picture": noise})
        if what == "pictures":
            return {"pil": Pil.new("RGB", (5, 4)), "array": np.zeros((6, 7, 3), np.uint8), "path": Path(path)}
        return {"word": self.word, "calls": self.calls, "ranks": self.world_size, "number": number}


class Ranked(App):
    """Two ranks."""

    name = "tests/ranked"
    worker, num_gpus = Worker, 2
    setup_args = {"word": "default", "broken": ""}

    @endpoint("/")
    async def work(self, request: Request) -> dict[str, Any]:
        return await self.run(request, **({"file": "own"} if request.file else {}))

    @endpoint("/light", num_gpus=0)
    async def light(self, request: Request) -> dict[str, Any]:
        self.progress(about=request.what)
        if request.what == "block":
            wait_in_the_loop(request.path)
        return await self.run(request) if request.what == "cheat" else {"what": request.what}


class Picture(Image):
    seed: int


class Many(BaseModel):
    pictures: list[Picture]
    text: File
    nothing: File | None = None
    link: File


class Answer(BaseModel):
    number: int


class Plain(App):
    """No ranks."""

    name = "tests/plain"
    max_multiplexing = 12

    def __init__(self) -> None:
        self.ready = False

    async def setup(self) -> None:
        self.ready = True

    @endpoint("/")
    async def answer(self, request: Request) -> dict[str, Any]:
        """Say what was asked."""
        self.progress(step=1, total=2, loss=float("nan"))
        self.log("half-way")
        self.progress(step=2, total=2)
        return {"what": request.what, "number": request.number, "ready": self.ready}

    @endpoint("/typed")
    async def typed(self, request: Request) -> Answer:
        return Answer(number=request.number) if request.what == "right" else {"number": request.what}

    @endpoint("/read")
    async def read(self, request: Request) -> dict[str, Any]:
        files = ([request.file] if request.file else []) + request.more
        return {"contents": [file.path.read_text() for file in files]}

    @endpoint("/files")
    async def files(self, request: Request) -> Many:
        drawn = Image.from_picture(Pil.new("RGB", (8, 6), "red"), content_type="image/webp")
        folder = Path(os.environ["TMPDIR"]) / "own"
        folder.mkdir()
        (folder / "a text.txt").write_text("written")
        return Many(
            pictures=[Picture.of(drawn, seed=41), Picture.of(drawn, seed=42)],
            text=File.from_path(folder / "a text.txt"),
            link=File(url="https://example.org/elsewhere"),
        )

    @endpoint("/large-event")
    async def large_event(self, request: Request) -> dict[str, Any]:
        self.progress(step=1, latents="x" * 10**6)
        call: Any = current_call.get()
        forged = json.dumps({"latents": "x" * 10**6})
        call._link.send(protocol.Happened(call._start.call_id, "progress", None, forged))
        return {}

    @endpoint("/files-then-bad")
    async def files_then_bad(self, request: Request) -> dict[str, Any]:
        return {"file": File.from_bytes(b"large", content_type="text/plain"), "value": object()}

    @endpoint("/bad")
    async def bad(self, request: Request) -> dict[str, Any]:
        values: dict[str, Any] = {
            "object": object(),
            "bytes": b"raw",
            "nan": float("nan"),
            "gone": Path("/no/such/file"),
            "nul": "a\0b",
        }
        return {"fine": 1, "inner": [{"value": values[request.what]}]}

    @endpoint("/environment")
    async def environment(self, request: Request) -> dict[str, Any]:
        return dict(os.environ)

    @endpoint("/wait")
    async def wait(self, request: Request) -> dict[str, Any]:
        self.progress(waiting=request.what)
        while not is_there(request.path):  # noqa: ASYNC110 - a test's signal is a file
            await asyncio.sleep(0.01)
        self.progress(done=request.what)
        return {"what": request.what}

    @endpoint("/raise")
    async def fail(self, request: Request) -> dict[str, Any]:
        if request.what == "exit":
            sys.exit(3)
        if request.what == "invalid":
            raise InvalidInput("that does not fit", errors=[{"loc": ["what"], "msg": "no", "type": "value_error"}])
        if request.what == "mute":
            raise Mute("never seen")
        if request.what == "objects":
            raise InvalidInput("odd", errors=[{"loc": [object(), 1], "msg": ValueError("no")}, object(), 2**70])
        raise ValueError("my own words")


class Mute(Exception):
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Rude(App):
    """Does what no app should."""

    name = "tests/rude"

    @endpoint("/")
    async def misbehave(self, request: Request) -> dict[str, Any]:
        self.progress(about=request.what)
        if request.what == "deaf":
            await never_ending(request.path)
        if request.what in DEEDS:
            DEEDS[request.what](request.path)
            await asyncio.Event().wait()
        if request.what == "block":
            wait_in_the_loop(request.path)
        if request.what == "block beside a rank":
            start_what_looks_like_a_rank()
            wait_in_the_loop(request.path)
        if request.what == "broken ranks":
            claim_broken_ranks()
        if request.what == "print":
            sys.stdout.buffer.write(b"\x00\x00\x00\x05garbage \xff\xfe" + b"x" * 100_000 + b"\n")
            os.write(2, b"and more\n")
        return {"pid": os.getpid()}


def wait_in_the_loop(path: str) -> None:
    while not is_there(path):
        time.sleep(0.01)


async def never_ending(path: str) -> None:
    """Swallow every cancel."""
    while not is_there(path):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


def fork_and_exit(path: str) -> None:
    if os.fork() == 0:
        wait_in_the_loop(path)
        os._exit(0)
    os._exit(9)


def scribble(_path: str) -> None:
    """Write to the app host's own socket."""
    for entry in Path("/proc/self/fd").iterdir():
        if entry.exists() and entry.is_socket():
            with socket.socket(fileno=os.dup(int(entry.name))) as found:
                if found.family == socket.AF_UNIX:
                    found.sendall(b"\xff" * 64)


def start_what_looks_like_a_rank() -> None:
    words = [sys.executable, "-c", "import signal; signal.pause()", "worker_node.distributed.rank"]
    subprocess.Popen(words, process_group=0)


def claim_broken_ranks() -> None:
    """Say what an app's process says when its ranks could not be rebuilt."""
    call: Any = current_call.get()
    call._link.send(protocol.Ranks("broken", []))


DEEDS: dict[str, Callable[[str], object]] = {
    "exit": lambda _path: os._exit(7),
    "background exit": lambda _path: asyncio.get_running_loop().call_soon(sys.exit, 5),
    "fork": fork_and_exit,
    "scribble": scribble,
}
