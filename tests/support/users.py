"""Run a part of a test as an ordinary user, also when the tests run as root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stoker.local.place import NOBODY, is_open


def as_ordinary_user() -> list[str]:
    """What to put before a command. Root becomes ``nobody``; a Python under a closed folder stays readable to it."""
    if os.geteuid() != 0:
        return []
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if all(is_open(path.parent) for path in (Path(sys.executable), Path(sys.executable).resolve())):
        return user
    return [*user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def give_to_ordinary_user(folder: Path) -> None:
    """Let that user write ``folder``."""
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
