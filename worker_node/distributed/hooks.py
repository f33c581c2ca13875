"""Hooks: what a runner tells whoever listens, and what becomes of it where nobody does.

A listener that raises is told of in the log and harms nobody else. Ranks' lines go to logging; in a program that has
not set logging up they are shown on stderr, so that a script's first prints are not lost.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from worker_node.distributed.events import RankLog, RunnerState, RunnerStatus

_log = logging.getLogger("worker_node.distributed")
_rank_log = logging.getLogger("worker_node.distributed.rank")


class Hooks:
    """One runner's listeners."""

    def __init__(
        self, on_log: Callable[[RankLog], None] | None, on_change: Callable[[RunnerStatus], None] | None
    ) -> None:
        self._on_log, self._on_change = on_log, on_change
        self._told: tuple[RunnerState, int] | None = None

    def log(self, log: RankLog) -> None:
        """Pass on a line of a rank."""
        if _rank_log.hasHandlers():
            _rank_log.log(log.level, "[rank %d] %s", log.rank, log.message, extra={"rank": log.rank})
        elif self._on_log is None:
            mark = "[debug] " if log.level <= logging.DEBUG else ""
            print(f"{mark}[rank {log.rank}] {log.message}", file=sys.stderr)  # noqa: T201 - as logging's last resort does
        if self._on_log is not None:
            try:
                self._on_log(log)
            except Exception:  # noqa: BLE001 - a listener's own fault, whatever it is
                _log.exception("on_log raised")

    def change(self, status: Callable[[], RunnerStatus]) -> None:
        """Tell of the runner's state, unless it was told already."""
        if self._on_change is None:
            return
        now = status()
        if self._told == (now.state, now.restarts):
            return
        self._told = now.state, now.restarts
        try:
            self._on_change(now)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("on_change raised")
