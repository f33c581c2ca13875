"""What is left of a session: processes that a child started, however deep, when the child itself is gone.

A kill reaches one process group, and ranks have groups of their own; the kernel ends them with their parent, but not
what they started. ``host_process`` calls it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

_ROUNDS = 5
"""A process may start another while its session is being read."""


def end_session(leader: int) -> None:
    """Send SIGKILL to every process of the session that ``leader`` began.

    The caller holds the leader, dead or alive, unreaped: until then no other session can have its number.
    """
    for _ in range(_ROUNDS):
        members = [pid for pid in _members(leader) if pid != leader]
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not members:
            return


def _members(session: int) -> Iterator[int]:
    """Those that live; what is dead and waits for its parent is no member."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            # Behind the name, which may hold anything: state, parent, group, session.
            state, _, _, of, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(of) == session and state not in "ZX":
            yield int(entry.name)
