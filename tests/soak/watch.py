"""What a process holds at one moment: memory, objects, descriptors, threads, children, shared memory, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

SHARED = ("/memfd:", "/dev/shm/", "/SYSV")


@dataclass(frozen=True)
class Sample:
    """One process after so many calls. ``objects`` are what Python's garbage collector knows, ``blocks`` what its
    allocator has handed out, ``allocated_bytes`` what the C library's has: memory in use, whatever lies free between.
    """

    calls: int
    pid: int
    memory_bytes: int
    objects: int
    blocks: int
    allocated_bytes: int
    descriptors: int
    threads: int
    children: int
    segments: int
    files: int = 0


def sample(calls: int, pid: int, inside: Mapping[str, int], folder: Path | None = None) -> Sample:
    """Look at a process that has collected its garbage; ``folder`` is where its temporary files would be."""
    process = psutil.Process(pid)
    with process.oneshot():
        return Sample(
            calls=calls,
            pid=pid,
            memory_bytes=process.memory_info().rss,
            objects=inside["objects"],
            blocks=inside["blocks"],
            allocated_bytes=inside["allocated_bytes"],
            descriptors=process.num_fds(),
            threads=process.num_threads(),
            children=len(process.children(recursive=True)),
            segments=segments(pid),
            files=sum(1 for _ in folder.rglob("*")) if folder is not None else 0,
        )


def segments(pid: int) -> int:
    """Count the pieces of shared memory that a process has mapped or open."""
    mapped = [
        line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if any(name in line for name in SHARED)
    ]
    opened = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            opened += str(link.readlink()).startswith(SHARED)
        except FileNotFoundError:
            continue  # closed meanwhile
    return len(mapped) + opened
