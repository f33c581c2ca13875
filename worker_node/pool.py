"""RunnerPool: the Celery pool of a node. A thread answers each doorbell, and the hub is woken when it ends.

It runs nothing itself: what a doorbell leads to happens on the node's asyncio loop (``worker_node.node``) and in the
app hosts. Celery's time limits, children and prefetch mean nothing here. ``worker_node.consumer`` gives it to Celery.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery.concurrency.base import BasePool, apply_target
from kombu.asynchronous import Hub


def _noop() -> None:
    """What wakes the hub: without it the hub sleeps to its 1 s tick and sees acknowledgements late."""


class RunnerPool(BasePool):
    """A thread for each doorbell. The gate bounds how many there are: one an app that could start a job."""

    signal_safe = False
    body_can_be_buffer = True

    _hub: Hub | None = None

    def register_with_event_loop(self, hub: Hub) -> None:
        """Celery calls this again at each reconnect, so it stores and opens nothing."""
        self._hub = hub

    def on_apply(
        self,
        target: Callable[..., object],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[[object], None] | None = None,
        accept_callback: Callable[[int, float], None] | None = None,
        **_: object,
    ) -> None:
        threading.Thread(
            target=self._answer, args=(target, args, kwargs, callback, accept_callback), name="doorbell", daemon=True
        ).start()

    def _answer(
        self,
        target: Callable[..., object],
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        callback: Callable[[object], None] | None,
        accept_callback: Callable[[int, float], None] | None,
    ) -> None:
        try:
            apply_target(target, args, kwargs, callback, accept_callback, getpid=threading.get_native_id)
        finally:
            if self._hub is not None:
                self._hub.call_soon(_noop)
