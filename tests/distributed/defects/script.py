"""A program of its own with a runner in it: says what the library changed in its process, or ends without a stop."""

from __future__ import annotations

import asyncio
import copyreg
import importlib
import json
import logging
import multiprocessing
import multiprocessing.reduction
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from tests.distributed.defects.conftest import BENCH


def process_wide() -> dict[str, Any]:
    """What belongs to the whole process and not to a library."""
    return {
        "pickler": multiprocessing.reduction.ForkingPickler,
        "pickler's reducers": dict(multiprocessing.reduction.ForkingPickler._extra_reducers),
        "copyreg": dict(copyreg.dispatch_table),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "loop policy": asyncio.get_event_loop_policy(),
        "root logger": (logging.root.level, list(logging.root.handlers)),
        "warning filters": list(warnings.filters),
        "environment": dict(os.environ),
        "import path": list(sys.path),
        "working directory": Path.cwd(),
        "torch": "torch" in sys.modules,
    }


async def compare() -> None:
    before, changed = process_wide(), set()

    def look() -> None:
        changed.update(name for name, value in process_wide().items() if value != before[name])

    library = importlib.import_module("worker_node.distributed")
    look()
    runner = library.DistributedRunner(BENCH)
    await runner.start()
    look()
    await runner.invoke({"do": "echo"})
    look()
    await runner.stop()
    look()
    print(json.dumps(sorted(changed)))


async def leave() -> None:
    library = importlib.import_module("worker_node.distributed")
    runner = library.DistributedRunner(BENCH, keepalive_interval=3600)
    await runner.start()
    await runner.invoke({"do": "echo"})


if __name__ == "__main__":
    asyncio.run({"compare": compare, "leave": leave}[sys.argv[1]]())
