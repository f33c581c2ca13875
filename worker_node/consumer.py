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
from functools import partial
from types import FrameType
from typing import Protocol

from celery import Celery, Task
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
    working: dict[str, Future[Future[None] | None]] = {}
    """By the doorbell's id, as long as its claim or its work goes on."""

    def ring(app: str, bell: str) -> None:
        answer = working[bell] = answerer.answer(app)
        answer.add_done_callback(partial(answered, app, bell))

    def answered(app: str, bell: str, answer: Future[Future[None] | None]) -> None:
        gate.answered(app)
        work = None
        if not answer.cancelled() and (error := answer.exception()) is not None:
            logger.error("doorbell_not_answered", app=app, next="the node looks by itself", exc_info=error)
        elif not answer.cancelled():
            work = answer.result()
        if work is None:
            working.pop(bell, None)
        else:
            work.add_done_callback(lambda _: working.pop(bell, None))

    gate.on_ring, gate.is_busy = ring, working.__contains__

    @celery.task(name=WAKE_TASK, shared=False, bind=True)
    def wake(self: Task[..., None], app: str) -> None:  # noqa: ARG001 - what `celery inspect active` shows
        answer = working.get(str(self.request.id))
        if answer is not None and answer.exception() is None and (work := answer.result()) is not None:
            work.result()

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
