"""A worker that does what a list of steps says; ``script_model`` says what its caller must see.

Ranks import this module, so torch is imported inside functions.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from worker_node.distributed import DistributedWorker


class Scripted(DistributedWorker):
    """Each step is an operation, the ranks that do it, and how often. Callers count: calls come in that order, once."""

    nonce = 0

    def setup(self, broken: str = "") -> None:
        if broken and pathlib.Path(broken).exists():
            raise OSError("the weights are gone")

    def __call__(
        self, nonce: int, steps: Sequence[tuple[str, Sequence[int], int]], streaming: bool = False
    ) -> dict[str, Any]:
        if nonce <= self.nonce:
            raise RuntimeError(f"call {nonce} came after call {self.nonce}")
        self.nonce, self.numbers, self.sums = nonce, itertools.count(), 0
        result: dict[str, Any] = {"nonce": nonce, "rank": self.rank, "streaming": streaming}
        for operation, ranks, count in steps:
            if self.rank not in ranks:
                continue
            if operation == "return_lock":
                return {**result, "lock": threading.Lock()}
            getattr(self, operation)(count)
        return {**result, "sums": self.sums}

    def output(self, count: int) -> None:
        for _ in range(count):
            self.add_streaming_result(self.next_event())

    def progress(self, count: int) -> None:
        for _ in range(count):
            self.add_progress({**self.next_event(), "is_progress": True})

    def error(self, count: int) -> None:
        for _ in range(count):
            self.add_streaming_error(ValueError(f"{self.nonce} {self.rank} {next(self.numbers)}"))

    def output_lock(self, _: int) -> None:
        self.add_streaming_result({"lock": threading.Lock()})

    def reduce(self, count: int) -> None:
        import torch
        import torch.distributed as dist

        for _ in range(count):
            ones = torch.ones(1)
            dist.all_reduce(ones)
            self.sums += int(ones)

    def reduce_unwaited(self, count: int) -> None:
        """Enter a collective and go on: one that another rank never enters stays half done."""
        import torch
        import torch.distributed as dist

        self.left_behind = [dist.all_reduce(torch.ones(1), async_op=True) for _ in range(count)]

    def fail(self, _: int) -> None:
        raise KeyError(self.nonce)

    def exit(self, _: int) -> None:
        os._exit(3)

    def kill(self, _: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hold(self, _: int) -> None:
        """Say that it holds, and look for a cancel for ever."""
        if self.rank == 0:
            self.add_streaming_result(self.next_event())
        while True:
            self.raise_if_cancelled()
            time.sleep(0.002)

    def be_deaf(self, _: int) -> None:
        """Say so, and never look."""
        if self.rank == 0:
            self.add_streaming_result(self.next_event())
        threading.Event().wait()

    def next_event(self) -> dict[str, Any]:
        return {"nonce": self.nonce, "rank": self.rank, "number": next(self.numbers)}
