"""The shelf: memory without a name in which a sender stages large frames, kept for a while to be written again.

Fresh pages are dear, most of all where a hypervisor takes back what a guest has free, and has to give each anew. So the
sender keeps what it has given, and writes it again when nobody has it any more. That is the kernel's word: what is
given is a second description of the memory, under a lock that lasts for as long as a descriptor, a mapping or a message
under way refers to it, in whatever process, and that a process which is killed lets go of. Who never lets go costs
reuse alone. Pages count for the process that wrote them (its cgroup), until they are gone.

Knows nothing of who receives: ``segments`` gives, ``link`` and ``dispatch`` stage, ``media`` what comes from a device.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_node.distributed.media import Frame

ALONE_BYTES = 32 * 2**20
"""From this size on a frame for one receiver is staged. Below, as ``benchmarks/large_results.py`` shows, the allocator
brings back warm memory for what comes through a socket, and fresh pages cost more than the socket's copies."""

SHARED_BYTES = 8 * 2**20
"""The same for several receivers, which read one copy, and for a device's tensor, which needs fresh memory anyway."""

KEPT_BYTES = 128 * 2**20
"""The most that a process keeps for one runner, whether others have it or nobody; what is larger than half of it is not
kept, for it would take the place of all else."""

KEPT_S = 10.0
"""How long it is kept after it was last written."""

FIXED_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
"""Never longer nor shorter again: touching memory past its end would be the receiver's death."""


class Staged(mmap.mmap):
    """A frame in memory that can be given, by a descriptor; here it is only read."""

    fd: int
    given = False


class _Memory:
    """A piece of memory of this process's own: it alone has this descriptor."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("runner-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, self.fd)
        self.size_bytes = 0
        self.written_at = 0.0

    def is_free(self) -> bool:
        """Tell whether nobody has it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return True

    def write(self, pieces: Iterable[Frame]) -> None:
        """Fill it from its beginning. Written and not mapped: filling fresh pages through a mapping takes longer."""
        end = 0
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                done = os.pwrite(self.fd, rest, end)
                end, rest = end + done, rest[done:]
        if not self.size_bytes:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, FIXED_SIZE | fcntl.F_SEAL_SEAL)
            self.size_bytes = end
        self.written_at = time.monotonic()

    def lent(self, access: int) -> int:
        """Return a descriptor to give, which says by its lock that somebody has it."""
        fd = os.open(f"/proc/self/fd/{self.fd}", access | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd


class Shelf:
    """What one runner's parent, or one rank, stages in, for so many receivers. For any thread at any moment, also in
    the middle of another's word: whoever finds it in use goes without what is kept.
    """

    def __init__(self, receivers: int = 1) -> None:
        self._access = os.O_RDWR if receivers == 1 else os.O_RDONLY
        self._least_bytes = ALONE_BYTES if receivers == 1 else SHARED_BYTES
        self._kept: list[_Memory] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def stage(self, frames: Sequence[Frame]) -> list[Frame]:
        """Write what is large into shared memory, once for all receivers.

        Takes about 0.3 ms a MiB, most of it without the interpreter's lock. What comes back reads like what went in,
        and is a snapshot of it where it was written. What cannot be staged for any shortage stays as it was.
        """
        staged = list(frames)
        for index, frame in enumerate(frames):
            if len(frame) >= self._least_bytes and staged_in(frame) is None:
                with contextlib.suppress(OSError):
                    staged[index] = self.write([frame], len(frame))
        return staged

    def write(self, pieces: Iterable[Frame], size_bytes: int) -> memoryview:
        """Stage a frame of that size, which may come in pieces.

        Raises:
            OSError: there is no memory or no descriptor left.
        """
        memory = self._take(size_bytes) or _Memory()
        memory.write(pieces)
        fd = memory.lent(self._access)
        try:
            staged = Staged(fd, size_bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        except BaseException:
            os.close(fd)
            raise
        staged.fd = fd
        weakref.finalize(staged, os.close, fd)
        self._keep(memory)
        return memoryview(staged)

    def tidy(self) -> None:
        """Let go of what was not written for a while; to be called now and then while there is anything."""
        since = time.monotonic() - KEPT_S
        if self._lock.acquire(blocking=False):
            self._kept = [memory for memory in self._kept if memory.written_at > since]
            self._lock.release()

    def clear(self) -> None:
        """Let go of everything."""
        self._kept = []

    def _take(self, size_bytes: int) -> _Memory | None:
        """Find memory that nobody has, not much larger than needed."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            for memory in self._kept:
                if size_bytes <= memory.size_bytes <= 2 * size_bytes and memory.is_free():
                    self._kept.remove(memory)
                    return memory
            return None
        finally:
            self._lock.release()

    def _keep(self, memory: _Memory) -> None:
        if memory.size_bytes > KEPT_BYTES // 2 or not self._lock.acquire(blocking=False):
            return
        try:
            self._kept.append(memory)
            while sum(each.size_bytes for each in self._kept) > KEPT_BYTES:
                del self._kept[0]
        finally:
            self._lock.release()


def staged_in(frame: Frame) -> Staged | None:
    """Return the memory of a frame that can be given."""
    memory = frame.obj if isinstance(frame, memoryview) else None
    return memory if isinstance(memory, Staged) and len(frame) == len(memory) else None


def is_read_only(fd: int) -> bool:
    """Tell whether memory was given to several: what a receiver writes to is copied for it, page by page."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
