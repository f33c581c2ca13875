"""What a worker does when it is measured: the same few lines on our workers and on fal's.

Imports nothing but the standard library at first, because fal's environment has none of ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol


class Worker(Protocol):
    """What both kinds of workers have in common."""

    rank: int

    @property
    def device(self) -> Any:
        """Where it computes."""

    def add_streaming_result(self, result: Any) -> None:
        """Send an event."""

    def flush(self) -> None:
        """Wait until the events are on their way, where returning earlier would lose them."""


def work(worker: Worker, do: str = "nothing", **wanted: Any) -> Any:
    """Do what the payload says."""
    return _ACTS[do](worker, **wanted)


def _nothing(_worker: Worker) -> None:
    return None


def _events(worker: Worker, tag: str, count: int, pace_s: float = 0.0, flush: bool = False) -> None:
    if worker.rank != 0:
        return
    for number in range(count):
        if pace_s:
            time.sleep(pace_s)
        worker.add_streaming_result({"tag": tag, "number": number, "sent": time.monotonic()})
    if flush:
        worker.flush()


def _result(worker: Worker, size_bytes: int) -> Any:
    import torch

    if worker.rank != 0:
        return None
    kept = worker.__dict__.setdefault("kept", {})
    if size_bytes not in kept:
        kept[size_bytes] = torch.ones(size_bytes, dtype=torch.uint8, device=worker.device)
    return kept[size_bytes]


def _take(_worker: Worker, data: Any) -> int:
    return touched(data)


def _sit(worker: Worker) -> None:
    if worker.rank == 0:
        worker.add_streaming_result({"tag": "sit", "number": 0})
    threading.Event().wait()


def touched(data: Any) -> int:
    """Read a byte of each page, so that memory that is only promised counts as not yet there; return the size."""
    assert int(data[::4096].sum()) == len(data[::4096])
    return len(data)


_ACTS: dict[str, Callable[..., Any]] = {
    "nothing": _nothing,
    "events": _events,
    "result": _result,
    "take": _take,
    "sit": _sit,
}
