"""A worker that does what workers should not: speaks at odd moments, leaves things behind, ends in odd ways."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from tests.distributed.workers import Toolbox
from worker_node.distributed.errors import CallCancelled
from worker_node.distributed.window import OUTPUT_BYTES

_MIB = 2**20


class Loud:
    """Is garbage that logs when it is collected."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        logging.getLogger("loud").info("gone")


class Awkward(Toolbox):
    """Does what ``do`` says."""

    def setup(self, start_helper: bool = False, **kwargs: Any) -> None:
        super().setup(**kwargs)
        if start_helper:
            print(subprocess.Popen(["sleep", "600"]).pid, flush=True)

    def large_after_small(self, **_: Any) -> None:
        """Rank 0 says much, then the last rank something larger than the window."""
        if self.rank == 0:
            for _ in range(300):
                self.add_streaming_result(bytes(1000))
        self.all_reduce()
        if self.rank == self.world_size - 1:
            self.add_streaming_result(bytes(OUTPUT_BYTES + _MIB))

    def large(self, mebibytes: int, **_: Any) -> str:
        for _ in range(mebibytes):
            self.add_streaming_result(bytes(_MIB))
        return "large"

    def leave_outputs(self, **_: Any) -> str:
        """Return while a thread of this call waits for room."""
        self.sent = 0
        self.left = self.run_in_worker(self._send_many)
        while self.sent < OUTPUT_BYTES // _MIB - 1:
            threading.Event().wait(0.001)
        return "left"

    def _send_many(self) -> None:
        for _ in range(4 * OUTPUT_BYTES // _MIB):
            self.add_streaming_result("late" + "-" * _MIB)
            self.sent += 1

    def end_what_was_left(self, **_: Any) -> str:
        self.left.result()
        return "ended"

    def die_when_cancelled(self, **_: Any) -> None:
        """Stop as asked, and be dead as soon as that was said."""
        self.add_streaming_result("begun")
        try:
            while True:
                self.raise_if_cancelled()
        except CallCancelled:
            threading.Thread(target=self._die_after_report, daemon=True).start()
            raise

    def _die_after_report(self) -> None:
        while self._link is not None and self._link.call:
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self, how: str, **_: Any) -> None:
        """End in a way that is no Exception, with a thread that never ends."""
        self.run_in_worker(threading.Event().wait)
        if how == "exit":
            sys.exit(3)
        raise {"interrupt": KeyboardInterrupt, "cancel": asyncio.CancelledError}[how]

    def speak_in_between(self, count: int, **_: Any) -> list[Any]:
        """Log from a signal handler and from destructors while events and a result of many frames go out."""
        import numpy as np

        pieces = [np.full(10, number % 256, np.uint8) for number in range(60)]
        signal.signal(signal.SIGALRM, lambda *_: logging.getLogger("signal").info("tick"))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        gc.set_threshold(10, 1000, 1000)
        try:
            for number in range(count):
                Loud()
                self.add_streaming_result({"number": number, "pieces": pieces[:8]})
            return pieces
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            gc.set_threshold(700, 10, 10)

    def odd_flag(self, **_: Any) -> str:
        import numpy as np

        self.add_streaming_result("odd", as_text_event=np.True_)  # type: ignore[arg-type]
        return "fine"
