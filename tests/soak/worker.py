"""The worker of the soak: does what each call says, with the call's nonce in all that it sends."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
from typing import Any

from worker_node.distributed import DistributedWorker

_log = logging.getLogger("soak")


class SoakWorker(DistributedWorker):
    """Nonces rise on each rank: a call that came twice, or before its turn, is an error of the call."""

    latest = 0

    def setup(self) -> None:
        # The parent makes values from the same seeds; imported before the first sample of memory.
        from tests.soak import values

        self.values = values

    def __call__(self, nonce: int, do: str, streaming: bool = False, **kwargs: Any) -> dict[str, Any]:
        if nonce <= self.latest:
            raise RuntimeError(f"call {nonce} came after call {self.latest}")
        self.latest = nonce
        return {"nonce": nonce, "rank": self.rank, "value": getattr(self, do)(nonce, **kwargs)}

    def echo(self, nonce: int, value: Any) -> Any:
        return value

    def make(self, nonce: int, size_bytes: int) -> Any:
        """Return a value that the caller makes for itself."""
        return self.values.some_value(random.Random(nonce), size_bytes)

    def emit(self, nonce: int, events: list[list[Any]], size_bytes: int | None = 0) -> int:
        """Add outputs and progress; each carries a value from nonce, rank and number."""
        for number, (kind, ranks) in enumerate(events):
            if self.rank not in ranks:
                continue
            rng = random.Random(f"{nonce} {self.rank} {number}")
            value = self.values.event_value(rng, size_bytes)
            data = {"nonce": nonce, "rank": self.rank, "number": number, "kind": kind, "value": value}
            if kind == "progress":
                self.add_progress(data)
            else:
                self.add_streaming_result(data)
        return len(events)

    def fail(self, nonce: int, ranks: list[int], before_collective: bool) -> float:
        if self.rank in ranks:
            raise KeyError(nonce)
        return self.reduce(nonce) if before_collective else 0.0

    def reduce(self, nonce: int) -> float:
        import torch
        import torch.distributed as dist

        ones = torch.ones(16)
        dist.all_reduce(ones)
        return float(ones.sum())

    def lock(self, nonce: int, where: str) -> Any:
        if where == "event":
            self.add_streaming_result({"lock": threading.Lock()})
        return threading.Lock()

    def wait(self, nonce: int, heeds: bool) -> None:
        """Say that it waits, and wait for a cancel."""
        if self.rank == 0:
            self.add_streaming_result({"nonce": nonce, "rank": 0, "number": 0, "kind": "output", "value": {}})
        if not heeds:
            threading.Event().wait()
        while True:
            self.raise_if_cancelled()
            time.sleep(0.001)

    def die(self, nonce: int, rank: int, how: str) -> float:
        if self.rank == rank:
            if how == "exit":
                os._exit(3)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.reduce(nonce)

    def talk(self, nonce: int, lines: int) -> int:
        for line in range(lines):
            if line % 2:
                _log.info("line %d of call %d", line, nonce)
            else:
                print(f"line {line} of call {nonce}")
        return lines

    def tidy(self, nonce: float) -> None:
        """Give back what can be given back, and tell what is left."""
        self.add_streaming_result(tidied())


_COUNTS = ("ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")


class Mallinfo(ctypes.Structure):
    """What ``mallinfo2`` of the C library tells."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in ("arena", *_COUNTS, "uordblks", "fordblks", "keepcost"))


def tidied() -> dict[str, int]:
    """Collect garbage, have the allocator return what is free, and count what this process has in use."""
    gc.collect()
    library = ctypes.CDLL(None)
    library.malloc_trim(0)
    library.mallinfo2.restype = Mallinfo
    info = library.mallinfo2()
    return {
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "allocated_bytes": info.uordblks + info.hblkhd,
    }
