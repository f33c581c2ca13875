"""Ready: how a process tells the one that started it that it can be used.

The starter hands down a pipe and names it in STOKER_READY_FD; one JSON line goes into it, then it is closed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

VARIABLE = "STOKER_READY_FD"


def announce(facts: Mapping[str, str | int | list[str]]) -> None:
    """Write ``{"ready": true, ...facts}``, once, if anybody waits for it."""
    fd = os.environ.pop(VARIABLE, None)
    if fd is None:
        return
    with os.fdopen(int(fd), "w", encoding="utf-8") as pipe:
        pipe.write(json.dumps({"ready": True, **facts}) + "\n")
