"""What a child started in its session, however deep: ended when the child itself is gone, ranks also before.

A kill reaches one process group, and ranks have groups of their own; the kernel ends them with their parent, but not
what they started. ``host_process`` calls it, and ``host_remains``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path

_RANK = b"worker_node.distributed.rank"
"""The module that a rank's process runs."""
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


async def end_ranks(leader: int, within_s: float) -> bool:
    """End the ranks in a session whose leader lives on, with what they started; say whether they were gone in time.

    What /proc says counts, not the leader: it may have started ranks and told nobody yet.
    """
    for _ in range(_ROUNDS):
        ranks = {pid for pid in _members(leader, but_in="ZX") if _is_rank(pid)}
        if not ranks:
            return True
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if not await _all_end(partial(_members, leader, but_in="X", groups=ranks), within_s):
            return False
    return False


async def session_ends(leader: int, within_s: float) -> bool:
    """Wait until no process of the session is left, and say whether that was in time."""
    return await _all_end(partial(_members, leader, but_in="X"), within_s)


async def _all_end(find: Callable[[], Iterable[int]], within_s: float) -> bool:
    """Wait until the processes that ``find`` finds have ended.

    Killing is not enough: the memory of a GPU is free when the kernel is done with the last thread that used it.
    """
    try:
        async with asyncio.timeout(within_s):
            while members := list(find()):
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
    return not any(state not in "ZX" for state, _, _ in _stat(pid))


def _is_rank(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return _RANK in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


def _members(session: int, *, but_in: str, groups: Container[int] | None = None) -> Iterator[int]:
    """Its processes, of all groups or of these, but those in one of these states."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield from (
                int(entry.name)
                for state, group, of in _stat(int(entry.name))
                if of == session and state not in but_in and (groups is None or group in groups)
            )


def _stat(pid: int) -> Iterator[tuple[str, int, int]]:
    """State, group and session of a process; nothing of one that has ended meanwhile."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        # Behind the name, which may hold anything: state, parent, group, session.
        state, _, group, of, *_ = text.rpartition(")")[2].split()
        yield state, int(group), int(of)
