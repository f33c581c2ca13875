"""How much of everything, and what it has to show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """How many of what."""

    jobs: int = 200
    listeners_a_job: int = 10
    rate: float = 2.0
    """Events a second of each job, log lines and progress in turn."""
    seconds: float = 20.0
    step_seconds: float = 8.0
    steps: tuple[float, ...] = (3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20)
    polls: float = 500.0
    poll_seconds: float = 15.0
    submit_seconds: float = 6.0
    repeats: int = 3
    replica_jobs: int = 50


QUICK = Counts(
    jobs=5,
    listeners_a_job=4,
    seconds=0.5,
    step_seconds=1.0,
    steps=(),
    polls=50.0,
    poll_seconds=1.0,
    submit_seconds=0.3,
    repeats=1,
    replica_jobs=3,
)
CONNECTIONS = (1, 16)
SILENCE_S = 10.0
"""What has not come after so long of silence is lost."""

DELAY_P99_MS = 250.0
CLIENT_KB = 100.0
POLL_P99_MS = 50.0
OF_BARE = {1: 0.60, 16: 0.25}
