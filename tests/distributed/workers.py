"""Worker classes that the tests name by string; ranks import this module, so torch is imported inside functions."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from worker_node.distributed import DistributedWorker

if arrivals := os.environ.get("TESTS_ARRIVALS"):  # a named pipe: who has come as far as here
    with pathlib.Path(arrivals).open("a") as pipe:
        pipe.write(f"{os.getpid()}\n")


class Toolbox(DistributedWorker):
    """Does what the payload's ``do`` says, so that one pool of ranks serves many tests."""

    def setup(self, **kwargs: Any) -> None:
        self.setup_kwargs = kwargs

    def __call__(self, do: str, streaming: bool = False, **kwargs: Any) -> Any:
        return getattr(self, do)(streaming=streaming, **kwargs)

    def echo(self, value: Any = None, streaming: bool = False) -> Any:
        return {"value": value, "streaming": streaming, "setup": self.setup_kwargs, "pid": os.getpid()}

    def make(self, what: str, **_: Any) -> Any:
        """Return a value that the caller cannot send, because it tests what comes back."""
        import numpy as np
        import torch
        from PIL import Image

        return {
            "bfloat16": lambda: torch.arange(5, dtype=torch.bfloat16),
            "strided": lambda: torch.arange(6).reshape(2, 3).T,
            "array": lambda: np.arange(4, dtype=">i2"),
            "scalar": lambda: {"loss": np.float32(0.5), "step": np.int64(3)},
            "image": lambda: Image.new("RGBA", (3, 2), (1, 2, 3, 4)),
            "path": lambda: pathlib.Path("/weights/last.safetensors"),
            "time": lambda: dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
            "tuple": lambda: (1, (2, [3])),
            "lock": lambda: {"state": [{"lock": threading.Lock()}]},
        }[what]()

    def all_reduce(self, **_: Any) -> float:
        import torch
        import torch.distributed as dist

        ones = torch.ones(1, device=self.device)
        dist.all_reduce(ones)
        return float(ones)

    def emit(self, count: int, ranks: list[int], tag: str = "", **_: Any) -> str:
        if self.rank in ranks:
            for number in range(count):
                self.add_streaming_result({"tag": tag, "rank": self.rank, "number": number})
        return tag

    def double(self, numbers: Any, as_event: bool = False, **_: Any) -> Any:
        """Change what came in place, and send it back."""
        before = int(numbers.sum())
        numbers *= 2
        if as_event:
            (self.add_progress if self.rank else self.add_streaming_result)({"rank": self.rank, "numbers": numbers})
        return {"before": before, "numbers": numbers}

    def keep_memory(self, kept_s: float, **_: Any) -> None:
        """Have this rank keep memory for large values so long, and log when nothing is left of it."""
        from worker_node.distributed import link, shelf

        link.KEPT_S = shelf.KEPT_S = kept_s
        tidy = shelf.Shelf.tidy

        def told(kept: shelf.Shelf) -> None:
            was_any = bool(kept)
            tidy(kept)
            if was_any and not kept:
                logging.getLogger("shelf").info("rank %d keeps nothing", self.rank)

        shelf.Shelf.tidy = told

    def progress(self, steps: int, **_: Any) -> None:
        for step in range(steps):
            self.add_progress({"step": step})

    def outputs(self, count: int, size: int, file: str, **_: Any) -> None:
        """Add outputs of ``size`` bytes, and put a mark into a pipe for each that was sent."""
        with pathlib.Path(file).open("wb", buffering=0) as marks:
            for number in range(count):
                self.add_streaming_result({"number": number, "data": bytes(size)})
                marks.write(b".")

    def leave_task(self, **_: Any) -> None:
        """Leave a task behind that adds an event when ``let_task_go`` says so."""
        self.gate = threading.Event()
        self.left = self.run_in_worker(self._add_late)

    def _add_late(self) -> None:
        self.gate.wait()
        self.add_streaming_result("late")

    def let_task_go(self, **_: Any) -> str:
        self.gate.set()
        self.left.result()
        return "let go"

    def emit_error(self, **_: Any) -> str:
        self.add_streaming_error(ValueError("half of it failed"))
        return "whole"

    def emit_lock(self, **_: Any) -> None:
        self.add_streaming_result(threading.Lock())

    def fail(self, ranks: list[int], before_collective: bool = False, **_: Any) -> float | None:
        if self.rank in ranks:
            raise KeyError(f"no such thing on {self.rank}")
        return self.all_reduce() if before_collective else None

    def fail_oddly(self, how: str, **_: Any) -> None:
        if how == "mute":
            raise Mute
        if how == "log":
            logging.getLogger("someone.elses").warning("half \ud800 of a character")
            logging.getLogger("someone.elses").warning("%s", Mute())
            return
        raise ValueError("half \ud800 of a character")

    def die(self, rank: int, how: str, in_collective: bool = False, **_: Any) -> float | None:
        if self.rank == rank:
            if how == "exit":
                os._exit(3)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.all_reduce() if in_collective else None

    def step_until_cancelled(self, **_: Any) -> None:
        """Step for ever, with a collective in each step; say in an event when the stepping began."""
        step = 0
        while True:
            if self.rank == self.world_size - 1:
                # This rank asks later than the others: without a vote it alone would see a cancel that comes now.
                time.sleep(0.005)
            self.raise_if_cancelled()
            if step == 0 and self.rank == 0:
                self.add_streaming_result("stepping")
            step += 1
            self.all_reduce()

    def step_when_told(self, file: str, **_: Any) -> None:
        """Look whether the call is cancelled once ``file``, a named pipe, has been written to."""
        if self.rank == 0:
            self.add_streaming_result("stepping")
        with pathlib.Path(file).open("rb") as pipe:
            pipe.read(1)
        self.raise_if_cancelled()

    def ignore_cancel(self, **_: Any) -> None:
        if self.rank == 0:
            self.add_streaming_result("deaf")
        threading.Event().wait()

    def event_until_cancelled(self, **_: Any) -> None:
        while True:
            self.add_streaming_result("again")
            time.sleep(0.005)

    def talk(self, **_: Any) -> None:
        self.rank_print("a line of rank_print")
        self.rank_print("a line for debugging", debug=True)
        logging.getLogger("someone.elses").warning("a record of logging")
        print("a line of stdout")
        print("a line of stderr", file=sys.stderr)

    def chatter(self, size: int, **_: Any) -> int:
        print("\n".join(["x" * 99] * (size // 100)), flush=True)
        return size

    def environment(self, names: list[str], **_: Any) -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in names}

    def whereabouts(self, **_: Any) -> dict[str, Any]:
        return {"cwd": str(pathlib.Path.cwd()), "device": str(self.device)}

    def threads(self, **_: Any) -> int:
        import torch

        return torch.get_num_threads()

    def submitted(self, **_: Any) -> list[Any]:
        async def later() -> int:
            await asyncio.sleep(0)
            return 7

        return [self.submit(later()).result(), self.run_in_worker(len, "four").result(), self.running]

    def abort_loudly(self, **_: Any) -> None:
        os.abort()

    def spawn_helper(self, **_: Any) -> int:
        return subprocess.Popen(["sleep", "600"]).pid


class Mute(Exception):
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Parallel(DistributedWorker):
    """Pattern 1 of the reference: each rank its share, gathered on rank 0."""

    def __call__(self, count: int, streaming: bool = False, **kwargs: Any) -> dict[str, Any]:
        import torch
        import torch.distributed as dist

        share = torch.stack(
            [torch.full((4,), float(seed), device=self.device) for seed in range(self.rank, count, self.world_size)]
        )
        gathered = [torch.zeros_like(share) for _ in range(self.world_size)] if self.rank == 0 else None
        dist.gather(share, gathered, dst=0)
        return {"outputs": gathered} if self.rank == 0 else {}


class Trainer(DistributedWorker):
    """Pattern 2 of the reference: DDP, a batch for each rank, gradients in step."""

    def setup(self, lr: float = 0.1) -> None:
        import torch
        from torch.nn.parallel import DistributedDataParallel

        torch.manual_seed(0)
        self.model = DistributedDataParallel(torch.nn.Linear(2, 1).to(self.device))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)

    def __call__(self, steps: int, streaming: bool = False) -> dict[str, Any]:
        import torch
        import torch.distributed as dist

        seed = [11] if self.rank == 0 else [None]
        dist.broadcast_object_list(seed, src=0)
        generator = torch.Generator().manual_seed(seed[0] + self.rank)
        for step in range(steps):
            inputs = torch.randn(8, 2, generator=generator).to(self.device)
            loss = ((self.model(inputs).squeeze(1) - inputs.sum(1)) ** 2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.raise_if_cancelled()
            if streaming and self.rank == 0 and step % 5 == 0:
                self.add_streaming_result({"step": step, "loss": loss.item()}, as_text_event=True)
            dist.barrier()
        weights = [torch.zeros(1, 2, device=self.device) for _ in range(self.world_size)]
        dist.all_gather(weights, self.model.module.weight.detach())
        return {"loss": loss.item(), "weights": weights}


class Async(DistributedWorker):
    """All three methods async; teardown leaves a mark."""

    async def setup(self, mark: str) -> None:
        self.mark = mark

    async def __call__(self, number: int) -> int:
        await asyncio.sleep(0)
        self.add_streaming_result({"half": number / 2})
        return number * 2

    async def teardown(self) -> None:
        await asyncio.to_thread(pathlib.Path(self.mark).write_text, "torn down")


class BadSetup(DistributedWorker):
    def setup(self, rank: int, how: str = "raise") -> None:
        if self.rank != rank:
            # Would wait for ever if the failure of the other were not enough.
            threading.Event().wait()
        if how == "die":
            os._exit(9)
        raise OSError("no weights in /nowhere")


class FailsAgain(DistributedWorker):
    """Sets up once: the second time the file is there."""

    def setup(self, file: str) -> None:
        path = pathlib.Path(file)
        if path.exists():
            raise OSError("the weights are gone")
        path.touch()

    def __call__(self, **_: Any) -> None:
        os._exit(1)


class NotOurs:
    pass
