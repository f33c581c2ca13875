"""How long large bytes take from one process to others: through a zmq ipc socket, and through shared memory.

    python benchmarks/large_results.py [--mib 1 4 32 128] [--times 30] [--repeats 3]

Each figure is from before the sender begins until the last receiver has touched every page: written to each, or only
read from each. ``held`` is how long the sender's thread is busy with it. The ways take turns, so that whatever else the
machine does is shared among them. Both sides are processes of their own; the clock is the machine's.
"""

from __future__ import annotations

import argparse
import functools
import math
import mmap
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections import defaultdict
from typing import Any

import numpy as np
import zmq

PAGE = mmap.PAGESIZE
# How the receiver maps what it is sent; zmq is what it competes with.
MAPPINGS = {
    "shared": mmap.MAP_SHARED,
    "shared, populated": mmap.MAP_SHARED | mmap.MAP_POPULATE,
    "private": mmap.MAP_PRIVATE,
    "private, populated": mmap.MAP_PRIVATE | mmap.MAP_POPULATE,
}
# Both use the memory of the time before, which the receiver has let go of by then.
AGAIN = {"shared, again": mmap.MAP_SHARED, "private, again": mmap.MAP_PRIVATE}
WAYS = (
    "zmq", "zmq, copied", "shared", "shared, populated", "shared, sender maps", "shared, again", "private",
    "private, populated", "private, again",
)  # fmt: skip


def receive(channel: socket.socket, address: str) -> None:
    """Take what comes, touch every page of it and say when that was done."""
    pull: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
    pull.connect(address)
    while True:
        said, fds, _, _ = socket.recv_fds(channel, 200, 1)
        if not said:
            return
        way, touch, size = said.decode().split("|")
        if fds:
            mapping = {**MAPPINGS, **AGAIN}["shared" if way == "shared, sender maps" else way]
            memory: Any = mmap.mmap(fds[0], int(size), flags=mapping, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            os.close(fds[0])
        else:
            memory = pull.recv(copy=False).buffer
        pages = np.frombuffer(memory, np.uint8)[::PAGE]
        if touch == "write":
            pages += 1
        else:
            pages.sum()
        done = time.monotonic()
        del pages, memory
        channel.send(str(done).encode())


def write(payload: memoryview, *, mapped: bool) -> int:
    """Make memory without a name that holds ``payload``."""
    fd = os.memfd_create("benchmark", os.MFD_CLOEXEC)
    if mapped:
        os.ftruncate(fd, len(payload))
        with mmap.mmap(fd, len(payload)) as memory:
            memory[:] = payload
    else:
        fill(fd, payload)
    return fd


def fill(fd: int, payload: memoryview) -> int:
    """Write all of ``payload`` and return ``fd``."""
    done = 0
    while done < len(payload):
        done += os.pwrite(fd, payload[done:], done)
    return fd


@functools.cache
def kept(_way: str, _size_bytes: int) -> int:
    """Make memory without a name to be written again and again."""
    return os.memfd_create("benchmark", os.MFD_CLOEXEC)


def once(
    way: str, touch: str, payload: memoryview, channels: list[socket.socket], pushes: list[zmq.Socket[bytes]]
) -> tuple[float, float]:
    """Send to each receiver once; seconds until the last is done, and seconds that this thread was busy."""
    said = [f"{way}|{touch}|{len(payload)}".encode()]
    began = time.monotonic()
    if way.startswith("zmq"):
        for channel, push in zip(channels, pushes, strict=True):
            channel.send(said[0])
            push.send(payload, 0, way == "zmq, copied")
    else:
        fd = fill(kept(way, len(payload)), payload) if way in AGAIN else write(payload, mapped=way.endswith("maps"))
        for channel in channels:
            socket.send_fds(channel, said, [fd])
        if way not in AGAIN:
            os.close(fd)
    held = time.monotonic() - began
    return max(float(channel.recv(100)) for channel in channels) - began, held


def measure(receivers: int, sizes_mib: list[int], times: int, repeats: int) -> None:
    """Print a table for so many receivers of the same payload."""
    context = multiprocessing.get_context("spawn")
    # More than one may not share writable pages: no receiver may see another's changes.
    ways = [way for way in WAYS if receivers == 1 or not way.startswith("shared")]
    with tempfile.TemporaryDirectory() as folder:
        channels, pushes, processes = [], [], []
        for number in range(receivers):
            address = f"ipc://{folder}/{number}"
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            push: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
            push.bind(address)
            processes.append(context.Process(target=receive, args=(theirs, address)))
            processes[-1].start()
            theirs.close()
            channels.append(ours)
            pushes.append(push)
        print(f"\n{receivers} receiver(s); milliseconds: median, p99 of {times} x {repeats}, sender held (median)")
        for size_mib in sizes_mib:
            payload = memoryview(bytearray(os.urandom(2**20) * size_mib))
            taken = defaultdict(list)
            for turn in range(times * repeats + 2):
                for touch in ("write", "read"):
                    for way in ways:
                        sample = once(way, touch, payload, channels, pushes)
                        if turn >= 2:
                            taken[touch, way].append(sample)
            for (touch, way), samples in taken.items():
                whole = sorted(1e3 * sample[0] for sample in samples)
                held = statistics.median(1e3 * sample[1] for sample in samples)
                late = whole[math.ceil(0.99 * len(whole)) - 1]
                print(f"{size_mib:4} MiB  {touch:5}  {way:20} {statistics.median(whole):8.2f} {late:8.2f} {held:8.2f}")
        for channel, push, process in zip(channels, pushes, processes, strict=True):
            channel.close()
            push.close(linger=0)
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, nargs="+", default=[1, 4, 32, 128])
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--receivers", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    for receivers in options.receivers:
        measure(receivers, options.mib, options.times, options.repeats)


if __name__ == "__main__":
    main()
