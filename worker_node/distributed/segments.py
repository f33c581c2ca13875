"""Segments: large frames between a parent and a rank, in shared memory that has no name.

A sender stages a frame: its bytes are written once into memory of which there is only a descriptor. The descriptor goes
over a socket pair that the rank inherits, ahead of the message, in which a number stands for the frame. The receiver
maps the memory: it is the receiver's own and writable, and goes back when nothing refers to it any more. Whoever is
killed, the kernel takes everything back. What cannot be staged or given for any shortage stays as it was and travels
in the message. Pages count for the process that wrote them (its cgroup), until they are gone.

Knows nothing of values and messages: ``link`` and ``hub`` call it, ``media`` stages what comes from a device.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import socket
import struct
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from worker_node.distributed.errors import SerializationFailed

if TYPE_CHECKING:
    from worker_node.distributed.media import Frame

ALONE_BYTES = 32 * 2**20
"""From this size on a frame for one receiver is staged. Below, as ``benchmarks/large_results.py`` shows, the allocator
brings back warm memory for what comes through a socket, and fresh pages cost more than the socket's copies."""

SHARED_BYTES = 8 * 2**20
"""The same for several receivers, which read one copy, and for a device's tensor, which needs fresh memory anyway."""

_NUMBER = struct.Struct("=Q")
_FD = struct.Struct("=i")
# Never longer nor shorter again: touching it past its end would be the receiver's death.
_FIXED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE

# Python's own mapping keeps a descriptor open for as long as it lives, which a pile of tensors must not.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Staged(mmap.mmap):
    """Memory that can be given; read only here, so that it can still be sealed."""

    fd: int
    given = False


def stage(frames: Sequence[Frame], receivers: int = 1) -> list[Frame]:
    """Write what is large into shared memory, once for all ``receivers``.

    Takes about 0.3 ms a MiB, most of it without the interpreter's lock. What comes back reads like what went in, and is
    a snapshot of it where it was written.
    """
    least = ALONE_BYTES if receivers == 1 else SHARED_BYTES
    staged = list(frames)
    for index, frame in enumerate(frames):
        with contextlib.suppress(OSError):
            if len(frame) >= least and _staged(frame) is None:
                staged[index] = written([frame])
        memory = _staged(staged[index])
        if memory is not None and receivers > 1:
            # From now on nobody can change it: what a receiver writes to is copied for it, page by page.
            fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    return staged


def written(pieces: Iterable[Frame]) -> memoryview:
    """Stage a frame that comes in pieces.

    Raises:
        OSError: there is no memory or no descriptor left.
    """
    fd = os.memfd_create("runner-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        # Written and not mapped: filling fresh pages through a mapping takes twice as long.
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(fd, rest) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _FIXED)
        memory = _Staged(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    except BaseException:
        os.close(fd)
        raise
    memory.fd = fd
    weakref.finalize(memory, os.close, fd)
    return memoryview(memory)


class Segments:
    """One end of a rank's socket pair. ``give`` under the lock under which the message is sent, ``take`` in order."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._given = 0
        self._spare: int | None = None
        self._keep_spare()

    @classmethod
    def pair(cls) -> tuple[Segments, socket.socket]:
        """Make the parent's end, and what the rank inherits: close that once the rank is spawned."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def inherited(cls, fd: int) -> Segments:
        """Make the rank's end."""
        channel = socket.socket(fileno=fd)
        channel.set_inheritable(False)
        return cls(channel)

    def give(self, frames: Sequence[Frame]) -> tuple[list[Frame], list[int]]:
        """Send the descriptors of what is staged; never blocks.

        Returns:
            the frames to send instead, and the indices of those that are numbers now, for ``take``.
        """
        sent, given = list(frames), []
        for index, frame in enumerate(frames):
            memory = _staged(frame)
            if memory is not None and self._pass(memory):
                sent[index] = _NUMBER.pack(self._given)
                given.append(index)
        return sent, given

    def take(self, frames: Sequence[Frame], given: Iterable[int]) -> list[Frame]:
        """Put writable memory, which is the caller's alone, in the place of the numbers.

        Raises:
            SerializationFailed: a descriptor did not arrive. Neither will the frame.
        """
        taken = list(frames)
        for index in given:
            fd = self._receive(_NUMBER.unpack(frames[index])[0])
            try:
                taken[index] = _mapped(fd)
            finally:
                os.close(fd)
                self._keep_spare()
        return taken

    def close(self) -> None:
        """Close this end; memory that was taken stays."""
        self._channel.close()
        self._free_spare()

    def _pass(self, memory: _Staged) -> bool:
        if memory.given and not _is_read_only(memory.fd):
            raise ValueError("staged for one receiver and given to two")
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            # By hand: socket.send_fds and recv_fds do not pass their flags on.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(memory.fd))
            self._channel.sendmsg([_NUMBER.pack(self._given + 1)], [rights], flags)
        except OSError:
            # Full, or the other end is gone, which is told otherwise.
            return False
        memory.given = True
        self._given += 1
        return True

    def _receive(self, number: int) -> int:
        """Return the descriptor of that number; what came before it belongs to messages that were never sent."""
        while True:
            self._free_spare()
            try:
                flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                said, rights, _, _ = self._channel.recvmsg(_NUMBER.size, socket.CMSG_LEN(_FD.size), flags)
            except ConnectionResetError:
                # Said once, ahead of what the other end sent before it died without reading all.
                continue
            except OSError as exc:
                raise SerializationFailed(f"memory of a message did not arrive: {exc}") from exc
            if not rights:
                why = "no file descriptor is free" if said else "its sender is gone"
                raise SerializationFailed(f"memory of a message did not arrive: {why}")
            fd: int = _FD.unpack(rights[0][2])[0]
            if said == _NUMBER.pack(number):
                return fd
            os.close(fd)

    def _keep_spare(self) -> None:
        """Hold a descriptor for the next one to come: the kernel drops it where there is no number left for it."""
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _free_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def is_staged(frame: Frame) -> bool:
    """Tell whether this is memory that can be given."""
    return _staged(frame) is not None


def _staged(frame: Frame) -> _Staged | None:
    memory = frame.obj if isinstance(frame, memoryview) else None
    return memory if isinstance(memory, _Staged) and len(frame) == len(memory) else None


def _is_read_only(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)


def _mapped(fd: int) -> memoryview:
    size_bytes = os.fstat(fd).st_size
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _FIXED != _FIXED:
        raise SerializationFailed("memory of a message may still change its size")
    flags = mmap.MAP_PRIVATE if _is_read_only(fd) else mmap.MAP_SHARED
    address = _libc.mmap(None, size_bytes, _READ_WRITE, flags, fd, 0)
    if address == _MAP_FAILED:
        raise SerializationFailed(f"memory of a message cannot be mapped: {os.strerror(ctypes.get_errno())}")
    memory = (ctypes.c_ubyte * size_bytes).from_address(address)
    # Not when the interpreter ends: threads may still use it, and the kernel takes it back.
    weakref.finalize(memory, _libc.munmap, address, size_bytes).atexit = False
    return memoryview(memory).cast("B")
