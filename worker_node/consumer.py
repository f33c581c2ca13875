"""The Celery consumer of a node: listens for doorbells on the main thread and answers each with one claim.

It wires Celery's worker to our pool and gate, and knows nothing of jobs: the node claims. When Redis cannot be
reached it goes on trying for ever, and the node goes on working by its own look at Postgres.
``worker_node.__main__`` calls it.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import Protocol

from celery import Celery
from celery.worker import WorkController, state

from stoker import log
from stoker.queue import WAKE_TASK
from worker_node.gate import DoorbellStep, Gate
from worker_node.pool import RunnerPool

logger = log.get(__name__)


class Answerer(Protocol):
    """What a doorbell is answered by: ``worker_node.node.Node``, or a test."""

    def answer(self, app: str) -> Future[Future[None] | None]:
        """Claim one job of ``app``: resolves when the claim is made, with what resolves when its work is done."""


def make_consumer(celery: Celery, *, node_id: str, gate: Gate, answerer: Answerer) -> WorkController:
    """Celery's worker on our pool and gate. ``start()`` blocks, and belongs on the main thread.

    Its stock task consumer listens to a private, otherwise unused queue; apps' queues are the gate's.
    """
    answers: dict[str, Future[Future[None] | None]] = {}

    def ring(app: str) -> None:
        # At once, beside what Celery does before it comes to the task. There is one bell of an app at a time.
        answers[app] = answerer.answer(app)

    gate.on_ring = ring

    @celery.task(name=WAKE_TASK, shared=False)
    def wake(app: str) -> None:
        try:
            answer = answers.pop(app, None) or answerer.answer(app)
            work = answer.result()
        finally:
            gate.answered(app)
        if work is not None:
            work.result()  # so that `celery inspect active` shows what the node is busy with

    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a line for each doorbell says nothing of its job
    celery.set_default()  # Celery finds a message's task by way of the default app in threads that it did not start
    celery.steps["consumer"].add(DoorbellStep)
    worker: WorkController = celery.WorkController(
        hostname=f"stoker@{node_id}",
        pool=RunnerPool,
        concurrency=max(2, 2 * len(gate.apps)),
        queues=[f"node.{node_id}"],
        without_gossip=True,
        without_mingle=True,
        gate=gate,
    )
    return worker


def stop_on_signals(on_stop: Callable[[], None]) -> None:
    """SIGTERM and SIGINT end the consumer after calling ``on_stop``, which must not block. From the main thread."""

    def stop(signum: int, _frame: FrameType | None) -> None:
        logger.info("stopping", signal=signal.Signals(signum).name)
        on_stop()
        state.should_stop = 0  # type: ignore[assignment]  # the exit code, as Celery's own handler sets it

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
