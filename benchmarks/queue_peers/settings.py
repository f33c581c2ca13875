"""What is measured in a run: the systems, their workers, and how many of everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RATE = 20.0
CLIENTS = 8
"""Callers at once where a library lets them share a process; Celery and dramatiq send one by one."""


@dataclass(frozen=True)
class Counts:
    """How many of what."""

    repeats: int = 3
    warm_up: int = 20
    paced: int = 200
    followed: int = 40
    jobs: int = 600
    burst: int = 10_000
    idle_s: float = 30.0


QUICK = Counts(repeats=1, warm_up=2, paced=5, followed=3, jobs=20, burst=50, idle_s=2.0)


@dataclass(frozen=True)
class Peer:
    """A peer: the module that is its caller, and its worker's command line for so many slots."""

    name: str
    module: str
    worker: Callable[[int], list[str]]


def _celery(slots: int) -> list[str]:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    return ["celery", "-A", "benchmarks.queue_peers.celery_system:app", "worker", "-c", str(slots), *quiet]


def _taskiq(slots: int) -> list[str]:
    many = ["--workers", "1", "--max-async-tasks", str(slots), "--log-level", "WARNING"]
    return ["taskiq", "worker", "benchmarks.queue_peers.taskiq_system:broker", *many]


def _dramatiq(slots: int) -> list[str]:
    return ["dramatiq", "benchmarks.queue_peers.dramatiq_system", "-p", "1", "-t", str(slots)]


def _procrastinate(slots: int) -> list[str]:
    app = "benchmarks.queue_peers.procrastinate_system.app"
    return ["procrastinate", f"--app={app}", "worker", "--concurrency", str(slots)]


PEERS = (
    Peer("celery", "celery", _celery),
    Peer("celery sqlalchemy", "celery", _celery),
    Peer("taskiq", "taskiq", _taskiq),
    Peer("dramatiq", "dramatiq", _dramatiq),
    Peer("procrastinate", "procrastinate", _procrastinate),
)
