"""Doorbells: Celery messages that say that an app may have work.

A doorbell costs nothing to lose or to double: Postgres holds the jobs and decides their order, and an idle node looks
by itself. So ringing never blocks and never raises. The API, the control loop and nodes ring; a node's consumer
listens.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter, deque
from functools import partial
from uuid import uuid4

import kombu
from celery import Celery

from stoker import log
from stoker.redis_link import RedisLink

QUEUE_PREFIX = "app."
WAKE_TASK = "stoker.wake"
ENOUGH_BELLS = 32
"""A node answers one bell with one claim, so a longer list only makes claims that find nothing."""
ENOUGH_FOR_S = 0.01
"""A list with so many bells has some left for so long. It need not be asked for each job of a burst."""
MAX_WAITING = 1000
BELL_ID = b"00000000-0000-0000-0000-000000000000"
UNLESS_ENOUGH = """
local length = redis.call('LLEN', KEYS[1])
for bell = 2, #ARGV do
    if length >= tonumber(ARGV[1]) then break end
    length = redis.call('LPUSH', KEYS[1], ARGV[bell])
end
return length
"""


logger = log.get(__name__)


def queue_name(app: str) -> str:
    """The Celery queue of an app: ``app.owner/alias``."""
    return f"{QUEUE_PREFIX}{app}"


def app_queue(app: str) -> kombu.Queue:
    """The queue of an app on the default exchange, which has no binding that a flushed Redis could lose."""
    return kombu.Queue(queue_name(app), exchange=kombu.Exchange(""), routing_key=queue_name(app))


def make_celery(redis_url: str) -> Celery:
    """The one Celery application of Stoker: JSON alone, no results, no retries, no time limits.

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
    """Rings on the running loop, beside what else happens there."""

    def __init__(self, redis_url: str) -> None:
        self._celery = make_celery(redis_url)
        # Over a connection of its own: to take one from a pool is to wait while the loop does something else.
        loses = "nodes are rung for no more: idle ones look by themselves"
        self._link = RedisLink(redis_url, loses=loses, is_single=True)
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._ringing: asyncio.Task[None] | None = None
        self._enough_until: dict[str, float] = {}
        self._bells: dict[str, bytes] = {}

    def ring(self, app: str) -> None:
        """Say that ``app`` may have work. Returns at once; what cannot be sent is dropped and logged."""
        if time.monotonic() < self._enough_until.get(app, 0.0):
            return
        self._waiting.append(app)
        if self._ringing is None:
            self._ringing = asyncio.create_task(self._ring())

    async def rung(self) -> None:
        """Wait until what waits was sent, or was lost."""
        if self._ringing is not None:
            await self._ringing

    async def close(self) -> None:
        """Send what waits, for as long as Redis may take, and end."""
        await self.rung()
        await self._link.close()

    async def _ring(self) -> None:
        try:
            while self._waiting:
                bells = Counter(self._waiting)
                self._waiting.clear()
                try:
                    for app, count in bells.items():
                        await self._link.ask(partial(self._send, app, min(count, ENOUGH_BELLS)))
                except Exception:
                    logger.exception("doorbell_lost", next="idle nodes look by themselves")
        finally:
            self._ringing = None

    async def _send(self, app: str, count: int) -> None:
        bells = [self._bell(app) for _ in range(count)]
        length = await self._link.redis.eval(UNLESS_ENOUGH, 1, queue_name(app), str(ENOUGH_BELLS), *bells)
        if length >= ENOUGH_BELLS:
            self._enough_until[app] = time.monotonic() + ENOUGH_FOR_S

    def _bell(self, app: str) -> bytes:
        """A task's message as Celery's consumer reads it from Redis. All of an app differ in their id alone."""
        if app not in self._bells:
            self._bells[app] = self._make_bell(app)
        return self._bells[app].replace(BELL_ID, str(uuid4()).encode())

    def _make_bell(self, app: str) -> bytes:
        name, bell_id = queue_name(app), BELL_ID.decode()
        task = self._celery.amqp.create_task_message(bell_id, WAKE_TASK, args=(app,), ignore_result=True)
        message = {
            "body": base64.b64encode(json.dumps(task.body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": task.headers,
            "properties": {
                **task.properties,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": name},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": bell_id,
            },
        }
        return json.dumps(message).encode()
