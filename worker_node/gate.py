"""Gate: which apps' doorbells this node listens to just now.

Each app has a kombu channel of its own, consumed from only while the node could start a job of that app. A doorbell
closes the channel before anything else happens: at that moment no BRPOP is in flight on it, so a busy node swallows
no doorbell, and one doorbell stands for one claim. ``Gate`` lives as long as the node; ``DoorbellStep``, Celery's
consumer step, starts anew at each reconnect and applies what ``Gate`` wants. Neither claims:
``worker_node.consumer`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from celery import bootsteps
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Consumer
from kombu.message import Message

from stoker import log
from stoker.queue import app_queue

logger = log.get(__name__)


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
        self.on_ring: Callable[[str], None] = lambda _app: None
        """Called with an app whose doorbell was taken, before Celery has it run its task. On the hub's thread."""

    def changed(self, app: str) -> None:
        """Apply what ``can_start(app)`` says now. From any thread.

        Callbacks of the hub run in any order, so this asks for one idempotent look, never for an opening or a closing.
        """
        celery = self._celery
        if celery is not None:
            celery.call_soon(self._reconcile, app)

    def answered(self, app: str) -> None:
        """The doorbell taken last has had its claim. From any thread."""
        self._ringing.discard(app)
        self.changed(app)

    def connect(self, celery: CeleryConsumer) -> None:
        """Open channels on the connection that Celery has just made and apply what is wanted. On the hub's thread."""
        open_channel = celery.connection.channel  # type: ignore[union-attr]  # Tasks, which we require, comes after it
        handler = celery.create_task_handler()
        self._consumers = {
            app: Consumer(
                open_channel(), [app_queue(app)], on_message=partial(self._ring, app, handler), accept=["json"]
            )
            for app in self.apps
        }
        self._celery = celery
        for app in self.apps:
            self._reconcile(app)

    def disconnect(self) -> None:
        """Listen to nothing until the next ``connect``. Celery closes the channels with the connection. Hub thread."""
        self._celery = None
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers.values():
            consumer.cancel()

    def _ring(self, app: str, handler: Callable[[Message], None], message: Message) -> None:
        self._ringing.add(app)
        self.on_ring(app)  # on the node's loop, while this thread does the rest
        self._consumers[app].cancel()
        handler(message)
        if message.acknowledged:  # Celery has rejected it, so no task will call answered().
            self.answered(app)

    def _reconcile(self, app: str) -> None:
        consumer = self._consumers.get(app)
        if consumer is None:
            return  # disconnected since: connect() applies what is wanted then
        if app not in self._ringing and self._may_ring(app):
            consumer.consume()
        else:
            consumer.cancel()

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
