"""Gate: which apps' doorbells this node listens to just now.

Each app has a kombu channel of its own, consumed from only while the node could start a job of that app. A doorbell
closes the channel before anything else happens: at that moment no BRPOP is in flight on it, so a busy node swallows
no doorbell, and one doorbell stands for one claim. ``Gate`` lives as long as the node; ``DoorbellStep``, Celery's
consumer step, starts anew at each reconnect and applies what ``Gate`` wants. Neither claims: the node does, which
``worker_node.consumer`` puts behind ``on_ring``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from celery import bootsteps
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Consumer
from kombu.transport.virtual import Message

from stoker import log
from stoker.queue import app_queue

RECORD_AFTER_S = 0.05
"""Celery is shown a doorbell's task so long after it was answered: what it does with it would delay the claim."""

logger = log.get(__name__)


class Bell(Message):
    """A doorbell has no acknowledgement: it is gone from Redis when it is taken, and costs nothing to lose."""

    def ack(self, multiple: bool = False) -> None:
        """Nothing waits for it."""

    def reject(self, requeue: bool = False) -> None:
        """Nothing waits for it."""


class Gate:
    """Opens and closes the channel of each app, always on the thread of Celery's hub.

    ``can_start`` is asked on that thread: it reads a flag and does nothing else.
    """

    def __init__(self, apps: Sequence[str], can_start: Callable[[str], bool]) -> None:
        self.apps = tuple(apps)
        self._can_start = can_start
        self._ringing: set[str] = set()
        self._celery: CeleryConsumer | None = None
        self._consumers: dict[str, Consumer] = {}
        self._are_open: dict[str, bool | None] = {}
        """What was applied last; None while that is under way."""
        self.on_ring: Callable[[str, str], None] = lambda _app, _bell: None
        """Called with an app whose doorbell was taken, and with the id of its task. On the hub's thread."""
        self.is_busy: Callable[[str], bool] = lambda _bell: True
        """Whether work that the task with this id led to goes on. On the hub's thread."""

    def changed(self, app: str) -> None:
        """Apply what ``can_start(app)`` says now. From any thread.

        Callbacks of the hub run in any order, so this asks for one idempotent look, never for an opening or a closing.
        """
        celery = self._celery
        # Asked after what it depends on was written, as the hub's thread says None before it reads that: either this
        # sees None, or what was applied is not older than what changed.
        if celery is not None and self._are_open.get(app) is not self._is_wanted(app):
            celery.call_soon(self._reconcile, app)

    def answered(self, app: str) -> None:
        """The doorbell taken last has had its claim. From any thread."""
        self._ringing.discard(app)
        self.changed(app)

    def connect(self, celery: CeleryConsumer) -> None:
        """Open channels on the connection that Celery has just made and apply what is wanted. On the hub's thread."""
        open_channel = celery.connection.channel  # type: ignore[union-attr]  # Tasks, which we require, comes after it
        handler = celery.create_task_handler()

        def consumer(app: str) -> Consumer:
            channel = open_channel()
            channel.Message = Bell  # type: ignore[union-attr]  # a virtual transport's, which Redis is
            taken = partial(self._ring, app, celery, handler)
            return Consumer(channel, [app_queue(app)], no_ack=True, on_message=taken, accept=["json"])

        self._consumers = {app: consumer(app) for app in self.apps}
        self._are_open = {}
        self._celery = celery
        for app in self.apps:
            self._reconcile(app)

    def disconnect(self) -> None:
        """Listen to nothing until the next ``connect``. Celery closes the channels with the connection. Hub thread."""
        self._celery = None
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers.values():
            consumer.cancel()

    def _ring(self, app: str, celery: CeleryConsumer, handler: Callable[[Message], None], message: Message) -> None:
        bell = str(message.headers.get("id") or message.delivery_tag)
        self._ringing.add(app)
        self._are_open[app] = False
        self.on_ring(app, bell)  # on the node's loop, whose turn it is when this thread has no more to do
        self._consumers[app].cancel()
        celery.timer.call_after(RECORD_AFTER_S, self._record, (celery, handler, bell, message))

    def _record(self, celery: CeleryConsumer, handler: Callable[[Message], None], bell: str, message: Message) -> None:
        """Have Celery run the task that waits for the bell's work, so that ``celery inspect active`` shows it."""
        if self._celery is celery and self.is_busy(bell):
            handler(message)

    def _reconcile(self, app: str) -> None:
        consumer = self._consumers.get(app)
        if consumer is None:
            return  # disconnected since: connect() applies what is wanted then
        self._are_open[app] = None
        if is_open := self._is_wanted(app):
            consumer.consume()
        else:
            consumer.cancel()
        self._are_open[app] = is_open

    def _is_wanted(self, app: str) -> bool:
        return app not in self._ringing and self._may_ring(app)

    def _may_ring(self, app: str) -> bool:
        """An error that reached Celery's hub would be taken for a lost connection: all channels would close."""
        try:
            return self._can_start(app)
        except Exception:
            logger.exception("app_not_asked", app=app, next="its doorbells are left to others until it is asked again")
            return False


class DoorbellStep(bootsteps.StartStopStep):
    """Celery's consumer step around a Gate, which comes as the worker option ``gate``."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: CeleryConsumer, *, gate: Gate, **options: object) -> None:
        super().__init__(parent, **options)
        self._gate = gate

    def start(self, parent: CeleryConsumer) -> None:
        self._gate.connect(parent)

    def stop(self, parent: CeleryConsumer) -> None:  # noqa: ARG002 - the signature is Celery's
        self._gate.disconnect()

    shutdown = stop
