"""What is left of a session: processes that a child started, however deep, when the child itself is gone.

A kill reaches one process group, and ranks have groups of their own; the kernel ends them with their parent, but not
what they started. ``host_process`` calls it.
"""

from __future__ import annotations

import asyncio
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
        members = [pid for pid in _members(leader, but_in="ZX") if pid != leader]
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not members:
            return


async def session_ends(leader: int, within_s: float) -> bool:
    """Wait until no process of the session is left, and say whether that was in time.

    Killing is not enough: the memory of a GPU is free when the kernel is done with the last thread that used it.
    """
    try:
        async with asyncio.timeout(within_s):
            while members := list(_members(leader, but_in="X")):
                await asyncio.gather(*(_ends(pid) for pid in members))
                if all(_is_dead(pid) for pid in members):
                    return True  # what is left of them is their parent's to collect
    except TimeoutError:
        return False
    return True


async def _ends(pid: int) -> None:
    """Wait until all threads of a process have ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _is_dead(pid: int) -> bool:
    return not any(state not in "ZX" for state, _ in _stat(pid))


def _members(session: int, *, but_in: str) -> Iterator[int]:
    """Its processes, but those in one of these states."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield from (
                int(entry.name) for state, of in _stat(int(entry.name)) if of == session and state not in but_in
            )


def _stat(pid: int) -> Iterator[tuple[str, int]]:
    """State and session of a process; nothing of one that has ended meanwhile."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        # Behind the name, which may hold anything: state, parent, group, session.
        state, _, _, of, *_ = text.rpartition(")")[2].split()
        yield state, int(of)
