"""A job queue as ``measures`` sees it. Imports the standard library alone: it runs in the peers' environment, too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class Place:
    """Where a system finds the engines that all of them share, in turns, and a folder of its own."""

    redis_url: str = field(default_factory=lambda: os.environ["BENCH_REDIS_URL"])
    results_url: str = field(default_factory=lambda: os.environ["BENCH_RESULTS_URL"])
    database_url: str = field(default_factory=lambda: os.environ["BENCH_DATABASE_URL"])
    folder: str = field(default_factory=lambda: os.environ["BENCH_FOLDER"])


class System(Protocol):
    """The caller's side. A job does nothing but note when its function was entered."""

    async def open(self) -> None:
        """Connect; make the tables that it needs."""

    async def submit(self) -> Any:
        """Submit one job as its users do; what names it."""

    async def finished(self) -> int:
        """Count the results in the store."""

    async def entries(self, jobs: Sequence[Any]) -> list[float]:
        """When the functions of finished jobs were entered, by this machine's clock."""

    async def wait(self, job: Any) -> None:
        """Wait until the job's result is readable, the quickest way that the system has."""
