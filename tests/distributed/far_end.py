"""The other end of a channel, as a process of its own: what ``test_segments`` has it do.

Imports little, as it starts often.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from worker_node.distributed.media import Frame
from worker_node.distributed.segments import Segments
from worker_node.distributed.shelf import ALONE_BYTES, Shelf

MIB = 2**20
_NAME = "memfd:runner-frame"

processes = multiprocessing.get_context("spawn")


def payload(size_bytes: int = MIB) -> bytes:
    return bytes(range(256)) * (size_bytes // 256)


class Rank:
    """A process at the other end; ``pipe`` stands for the message socket."""

    def __init__(self, act: Any, *args: Any) -> None:
        self.segments, channel = Segments.pair()
        self.pipe, theirs = processes.Pipe()
        self.process = processes.Process(target=act, args=(channel, theirs, *args), daemon=True)
        self.process.start()
        channel.close()
        theirs.close()

    def call(self, *frames: Frame) -> Any:
        self.pipe.send(self.segments.give(frames))
        return self.pipe.recv()

    def end(self) -> int | None:
        self.pipe.close()
        self.process.join()
        return self.process.exitcode


def written(*pieces: bytes) -> memoryview:
    """A frame in memory that is not written again."""
    return Shelf().write(pieces, sum(map(len, pieces)))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def mappings(pid: int | str = "self") -> int:
    return Path(f"/proc/{pid}/maps").read_text().count(_NAME)


def messages(channel: socket.socket, pipe: Connection) -> Iterator[list[Frame]]:
    """Take each message that comes, until there are no more."""
    ours = Segments.inherited(channel.detach())
    while True:
        try:
            said = pipe.recv()
        except EOFError:
            return
        yield ours.take(*said)


def increment(channel: socket.socket, pipe: Connection) -> None:
    """Add one to every byte and say what each array then begins with."""
    for frames in messages(channel, pipe):
        arrays = [np.frombuffer(frame, np.uint8) for frame in frames]
        for array in arrays:
            array += 1
        pipe.send([bytes(array[:4]) for array in arrays])


def count(channel: socket.socket, pipe: Connection) -> None:
    """Say what is open and mapped, with the message and without it."""
    for frames in messages(channel, pipe):
        held = mappings()
        del frames
        pipe.send((held, mappings(), open_descriptors()))


def echo(channel: socket.socket, pipe: Connection) -> None:
    """Send everything back, through shared memory."""
    ours = Segments.inherited(channel.detach())
    frames = ours.take(*pipe.recv())
    pipe.send(ours.give([written(frame) for frame in frames]))


def fill(channel: socket.socket, pipe: Connection, size_bytes: int) -> None:
    """Give something, say so and wait to be killed."""
    ours, shelf = Segments.inherited(channel.detach()), Shelf()
    pipe.send(ours.give([shelf.write([bytes(size_bytes)], size_bytes)]))
    signal.pause()


def hold(channel: socket.socket, pipe: Connection) -> None:
    """Take nothing and wait to be killed."""
    pipe.send(None)
    signal.pause()


def give_to_nobody(channel: socket.socket, pipe: Connection) -> None:
    """Give to an end that is gone, where a broken pipe would kill."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    ours = Segments.inherited(channel.detach())
    pipe.recv()
    frame = written(payload())
    pipe.send((ours.give([frame])[1], bytes(frame) == payload()))


def take_with_the_last_descriptor(channel: socket.socket, pipe: Connection) -> None:
    """Take while no other descriptor can be opened."""
    ours = Segments.inherited(channel.detach())
    said = pipe.recv()
    kept = open_everything()
    whole = [bytes(frame) == payload() for frame in ours.take(*said)]
    pipe.send((len(kept) > 0, whole))


def stage_without(channel: socket.socket, pipe: Connection, what: str) -> None:
    """Stage where memory cannot be made, or not enough of it, and give where nothing more can be under way."""
    frame = bytes(ALONE_BYTES)
    if what == "descriptors":
        kept = open_everything()
        assert kept
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
    pipe.send(Shelf().stage([frame])[0] is frame)


def open_everything() -> list[int]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 5, open_descriptors() + 5))
    opened = []
    while True:
        try:
            opened.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return opened


def keep(channel: socket.socket, pipe: Connection) -> None:
    """Keep all that comes and say how it begins."""
    kept: list[Frame] = []
    for frames in messages(channel, pipe):
        kept += frames
        pipe.send(b"".join(bytes(frame[:1]) for frame in kept))


def leave_to_a_child(channel: socket.socket, pipe: Connection) -> None:
    """Take a frame, leave it to a child that says how it begins when it is asked, and let go of it."""
    ours = Segments.inherited(channel.detach())
    frames = ours.take(*pipe.recv())
    if os.fork():
        del frames
        pipe.send(mappings())
        os.wait()
        return
    pipe.recv()
    pipe.send(bytes(frames[0][:1]))
    os._exit(0)
