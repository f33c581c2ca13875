"""Segments: large frames between a parent and a rank, in shared memory that has no name.

A sender stages a frame on its ``shelf``: in memory of which there is only a descriptor. The descriptor goes over a
socket pair that the rank inherits, ahead of the message, in which a number and the size stand for the frame. The
receiver maps the memory: it is the receiver's own and writable, and goes back when nothing refers to it any more.
Whoever is killed, the kernel takes everything back. What cannot be given for any shortage stays as it was and travels
in the message.

Knows nothing of values and messages: ``link`` and ``channel`` call it.
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
from worker_node.distributed.shelf import FIXED_SIZE, Staged, is_read_only, staged_in

if TYPE_CHECKING:
    from worker_node.distributed.media import Frame

_NUMBER = struct.Struct("=Q")
_FRAME = struct.Struct("=QQ")
_FD = struct.Struct("=i")
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE

# Python's own mapping keeps a descriptor open for as long as it lives, which a pile of tensors must not.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value


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
            memory = staged_in(frame)
            if memory is not None and self._pass(memory):
                sent[index] = _FRAME.pack(self._given, len(frame))
                given.append(index)
        return sent, given

    def take(self, frames: Sequence[Frame], given: Iterable[int]) -> list[Frame]:
        """Put writable memory, which is the caller's alone, in the place of the numbers.

        Raises:
            SerializationFailed: a descriptor did not arrive. Neither will the frame.
        """
        taken = list(frames)
        for index in given:
            number, size_bytes = _FRAME.unpack(frames[index])
            fd = self._receive(number)
            try:
                taken[index] = _mapped(fd, size_bytes)
            finally:
                os.close(fd)
                self._keep_spare()
        return taken

    def close(self) -> None:
        """Close this end; memory that was taken stays."""
        self._channel.close()
        self._free_spare()

    def _pass(self, memory: Staged) -> bool:
        if memory.given and not is_read_only(memory.fd):
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


def _mapped(fd: int, size_bytes: int) -> memoryview:
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & FIXED_SIZE != FIXED_SIZE or os.fstat(fd).st_size < size_bytes:
        raise SerializationFailed("memory of a message is too small, or may still change its size")
    flags = mmap.MAP_PRIVATE if is_read_only(fd) else mmap.MAP_SHARED
    address = _libc.mmap(None, size_bytes, _READ_WRITE, flags, fd, 0)
    if address == _MAP_FAILED:
        raise SerializationFailed(f"memory of a message cannot be mapped: {os.strerror(ctypes.get_errno())}")
    memory = (ctypes.c_ubyte * size_bytes).from_address(address)
    # Not when the interpreter ends: threads may still use it, and the kernel takes it back.
    weakref.finalize(memory, _libc.munmap, address, size_bytes).atexit = False
    return memoryview(memory).cast("B")
