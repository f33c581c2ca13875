"""Doors: which apps could start a job here, for a thread that may not look at them itself.

Written on the node's loop whenever something changes; Celery's hub reads, through ``worker_node.gate``. Whether a job
is claimed after all is the executor's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stoker import log
from worker_node.executor import Executor

logger = log.get(__name__)


class Doors:
    """Closed at first. ``on_change`` hears each app that was looked at, whether or not it is another now."""

    def __init__(self, executors: Mapping[str, Executor], on_change: Callable[[str], None]) -> None:
        self._executors, self._on_change = executors, on_change
        self._are_open: dict[str, bool] = {}

    def is_open(self, app: str) -> bool:
        """What was true when the app changed last. From any thread."""
        return self._are_open.get(app, False)

    def changed(self, app: str) -> None:
        """Look at the app. On the node's loop: all that it looks at changes there."""
        try:
            self._are_open[app] = self._executors[app].is_open
        except Exception:
            logger.exception("app_not_asked", app=app, next="its doorbells are left to others until it is asked again")
            self._are_open[app] = False
        self._on_change(app)
