"""The worker of the tests of the defects; ranks import this module, so torch and the like are imported inside."""

from __future__ import annotations

import asyncio
import multiprocessing.reduction
import os
import threading
from typing import TYPE_CHECKING, Any

from tests.distributed.workers import Toolbox
from worker_node.distributed import messages
from worker_node.distributed.messages import Kind, Message

if TYPE_CHECKING:
    from PIL import Image


class Bench(Toolbox):
    """A Toolbox with what only the defects need."""

    def emit_and_fail(self, **_: Any) -> None:
        if self.rank == 0:
            self.add_streaming_result("half")
            raise KeyError("no such thing on 0")

    def fail_after_collective(self, ranks: list[int], **_: Any) -> None:
        self.all_reduce()
        if self.rank in ranks:
            raise KeyError(f"no such thing on {self.rank}")

    def emit_made(self, what: str, **_: Any) -> None:
        self.add_streaming_result({"made": self.make(what)}, as_text_event=True)

    def emit_as(self, as_text_event: bool, **_: Any) -> str:
        self.add_streaming_result({"step": 1}, as_text_event=as_text_event)
        return "whole"

    def emit_images(self, formats: list[str], **_: Any) -> tuple[Image.Image]:
        for image_format in formats:
            self.add_streaming_result((noise("RGBA"),), image_format=image_format)
        return (noise("RGBA"),)

    def noise(self, mode: str, **_: Any) -> Image.Image:
        return noise(mode)

    def leave_coroutine(self, **_: Any) -> None:
        """Return while a coroutine of this call waits, to add a result when a later call lets it."""
        self.gate = threading.Event()

        async def late() -> None:
            await asyncio.to_thread(self.gate.wait)
            self.add_streaming_result("late")

        self.left = self.submit(late())

    def let_coroutine_go(self, **_: Any) -> str:
        self.gate.set()
        self.left.result()
        self.add_streaming_result("mine")
        return "whole"

    def pickler(self, **_: Any) -> str:
        return multiprocessing.reduction.ForkingPickler.__module__

    def listening(self, **_: Any) -> dict[str, Any]:
        """The TCP addresses at which this rank waits for others, and the one that it was told to meet them at."""
        import psutil

        found = psutil.Process().net_connections("inet")
        return {
            "rank": self.rank,
            "at": [(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN],
            "store": (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])),
        }

    def send_strays(self, **_: Any) -> str:
        """Send what is no message of this pool where its messages go. Nobody but a rank could."""
        forged = messages.pack(bytes(16), Message(Kind.DONE, self.rank, self._link.call, {"steps": {}}))
        for frames in ([b""], [b"stray"], [b"two", b"frames"], [b"\x80\x04."], forged):
            self._link._out.send_multipart(frames)
        return "whole"

    def emit_listening(self, **_: Any) -> None:
        self.add_streaming_result(self.listening())


class Counting(Toolbox):
    """Counts its calls; every one whose number is asked to fail does."""

    count = 0

    def __call__(self, fail: bool = False, **_: Any) -> int:
        self.count += 1
        self.rank_print(f"call {self.count}")
        if fail:
            raise ValueError(self.count)
        return self.count


def noise(mode: str) -> Image.Image:
    """The same picture everywhere, of the kind that every lossy step would change."""
    import numpy as np
    from PIL import Image

    shape = (24, 32, len(mode))
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8), mode)
