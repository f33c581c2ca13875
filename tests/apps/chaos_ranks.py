"""The ranks of the app for chaos."""

from __future__ import annotations

import time
from typing import Any

from tests.apps.chaos import STEP_S
from worker_node.distributed import DistributedWorker


class RankedWorker(DistributedWorker):
    def __call__(self, seconds: float, streaming: bool = False, **_: Any) -> float:
        for step in range(steps := max(1, round(seconds / STEP_S))):
            self.raise_if_cancelled()
            time.sleep(seconds / steps)
            self.add_streaming_result({"step": step + 1, "total": steps})
        return seconds
