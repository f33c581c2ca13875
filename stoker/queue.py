"""Doorbells: Celery messages that say that an app may have work.

A doorbell costs nothing to lose or to double: Postgres holds the jobs and decides their order, and an idle node looks
by itself. So ringing never blocks and never raises. The API and the control loop ring; the node's consumer listens.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import cast
from uuid import uuid4

import kombu
from celery import Celery
from kombu.transport.redis import Channel

from stoker import log

QUEUE_PREFIX = "app."
WAKE_TASK = "stoker.wake"
ENOUGH_BELLS = 32
"""A node answers one bell with one claim, so a longer list only makes claims that find nothing."""
ENOUGH_FOR_S = 0.01
"""A list with so many bells has some left for so long. It need not be asked for each job of a burst."""
MAX_WAITING = 1000
SOCKET_TIMEOUT_S = 1.0

logger = log.get(__name__)


def queue_name(app: str) -> str:
    """The Celery queue of an app: ``app.owner/alias``."""
    return f"{QUEUE_PREFIX}{app}"


def app_queue(app: str) -> kombu.Queue:
    """The queue of an app on the default exchange, which has no binding that a flushed Redis could lose."""
    return kombu.Queue(queue_name(app), exchange=kombu.Exchange(""), routing_key=queue_name(app))


def make_celery(redis_url: str) -> Celery:
    """The one Celery application of Stoker: JSON alone, early ack, no results, no retries, no time limits.

    A job may run ten hours, so nothing here may send a message again: leases in Postgres do that.
    """
    celery = Celery("stoker", broker=redis_url, set_as_current=False)
    celery.conf.update(
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        task_create_missing_queues=True,
        task_track_started=False,
        task_send_sent_event=False,
        worker_send_task_events=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=True,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # The kombu consumer blocks for 1 s in BRPOP, so the socket may be silent a little longer than that.
        broker_transport_options={
            "socket_timeout": 5.0,
            "socket_connect_timeout": 5.0,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        enable_utc=True,
        timezone="UTC",
    )
    return celery


class Doorbell:
    """Rings from a thread of its own."""

    def __init__(self, redis_url: str) -> None:
        self._celery = make_celery(redis_url)
        self._waiting: queue.Queue[str | None] = queue.Queue(maxsize=MAX_WAITING)
        self._reachable = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, app: str) -> None:
        """Say that ``app`` may have work. Returns at once; what cannot be sent is dropped and logged."""
        try:
            self._waiting.put_nowait(app)
        except queue.Full:
            self._note_unreachable("more bells wait than can be sent")

    def close(self) -> None:
        """Send what waits, for as long as one send may take, and end the thread."""
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(timeout=2 * SOCKET_TIMEOUT_S)

    def _run(self) -> None:
        line = _Line(self._celery)
        while not (self._closing.is_set() and self._waiting.empty()):
            app = self._waiting.get()
            if app is None:
                continue
            try:
                line.send(app)
                self._note_reachable()
            except Exception as error:  # noqa: BLE001 - kombu, redis-py and sockets raise what they like; a bell may be lost
                self._note_unreachable(str(error))
                line.close()
                self._forget_waiting()
        line.close()

    def _forget_waiting(self) -> None:
        """Drop what waits: nodes look by themselves by the time that Redis is back."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()

    def _note_reachable(self) -> None:
        if not self._reachable:
            logger.info("doorbell_back")
        self._reachable = True

    def _note_unreachable(self, reason: str) -> None:
        if self._reachable:
            logger.warning("doorbell_lost", reason=reason[:200], next="idle nodes look by themselves")
        self._reachable = False


class _Line:
    """One connection, made when it is first needed and again after it was closed."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._connection: kombu.Connection | None = None
        self._channel: Channel | None = None
        self._enough_until: dict[str, float] = {}

    def send(self, app: str) -> None:
        if time.monotonic() < self._enough_until.get(app, 0.0):
            return
        name = queue_name(app)
        channel = self._channel or self._open()
        if channel.client.llen(name) >= ENOUGH_BELLS:
            self._enough_until[app] = time.monotonic() + ENOUGH_FOR_S
            return
        message = self._celery.amqp.create_task_message(str(uuid4()), WAKE_TASK, args=(app,), ignore_result=True)
        kombu.Producer(channel, serializer="json").publish(
            message.body,
            exchange="",
            routing_key=name,
            headers=message.headers,
            retry=False,
            **message.properties,
        )

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.release()
        self._connection = self._channel = None

    def _open(self) -> Channel:
        self._connection = self._celery.connection_for_write(
            connect_timeout=SOCKET_TIMEOUT_S,
            transport_options={
                "socket_timeout": SOCKET_TIMEOUT_S,
                "socket_connect_timeout": SOCKET_TIMEOUT_S,
                "socket_keepalive": True,
                "health_check_interval": 10,
            },
        )
        # Without this the first use would pause 2 s between its tries.
        self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        self._channel = channel = cast("Channel", self._connection.channel())
        return channel
