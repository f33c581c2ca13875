"""Run a part of a test as an ordinary user, also when the tests run as root."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

from stoker.local.place import is_open

ORDINARY = pwd.getpwnam("daemon").pw_uid  # not the user as whom root's PostgreSQL runs


def as_ordinary_user() -> list[str]:
    """What to put before a command. A Python under a closed folder stays readable to it."""
    if os.geteuid() != 0:
        return []
    user = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
    if all(is_open(path.parent) for path in (Path(sys.executable), Path(sys.executable).resolve())):
        return user
    return [*user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def give_to_ordinary_user(folder: Path) -> None:
    """Let that user write ``folder``."""
    if os.geteuid() == 0:
        os.chown(folder, ORDINARY, ORDINARY)
