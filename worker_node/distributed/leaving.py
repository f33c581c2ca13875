"""The end of a rank's process: all that an interpreter's exit does for user code, and nothing that it does for itself.

With torch loaded, taking every module apart takes many times longer than the rest of a stop, and longer than a caller
may wait to hear of a rank that ended. What only that would do is not done: a file that a module keeps open is not
flushed, ``__del__`` of what modules hold does not run.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def quick_exit() -> Iterator[None]:
    """Make the end of the block the end of the program, with the exit code and the words that it would have had."""
    code = 1
    try:
        yield
        code = 0
    except SystemExit as exc:
        code = _number(exc.code)
        raise
    finally:
        # Called after the interpreter has waited for threads. The last to be registered is the first to run.
        atexit.register(_end, code)


def leave_now(code: object) -> NoReturn:
    """End the program as ``sys.exit(code)`` would, without waiting for threads: somebody waits to hear of the end."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)  # noqa: T201 - what the interpreter does
    _end(_number(code))


def _number(code: object) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    return 1


def _end(code: int) -> NoReturn:
    atexit.unregister(_end)
    # User code's handlers, in their order.
    atexit._run_exitfuncs()  # noqa: SLF001 - the interpreter's own way, for which it has no public name
    # What the worker held in cycles: its files are flushed, its temporary files removed.
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    # Native code has buffers of its own.
    ctypes.CDLL(None).fflush(None)
    os._exit(code & 0xFF)
