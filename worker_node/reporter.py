"""Reporter: what an attempt says while it runs, on its way to Redis and Postgres.

Progress and previews go to the bus a few times a second, the newest of each rank alone when there are too many; logs
become rows, in batches, and lines of a file where a job has more of them than rows may hold. A slow or dead engine
never slows the ranks: ``report`` only puts the event where a task finds it. It ends no job.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from datetime import UTC, datetime
from typing import Any, Self

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import job_logs, jobs, log
from stoker.bus import Bus
from stoker.crash_points import Point, reach
from stoker.database import is_passing
from stoker.errors import LeaseLost, StokerError
from stoker.events import Event, EventId, EventKind
from worker_node.attempt import Attempt, StopReason
from worker_node.host import HostEvent
from worker_node.log_file import Spill
from worker_node.metrics import NodeMetrics

PROGRESS_EVERY_S = 0.2
"""What comes sooner waits for its round, so that a rank that tells every step of thousands costs Redis little."""
PROGRESS_A_ROUND = 32
"""So many progress events may wait; then each rank keeps its newest alone."""
LOG_BATCH_S, LOG_SOON_S = 0.2, 0.05
"""Lines become rows no oftener than that; a line after a silence waits a moment for those that come with it."""
RETRY_S = 1.0
LOG_BYTES_PER_JOB = 1_000_000
"""So much of a job's log is in rows, all its attempts together; each attempt has the rest in a file."""
LOOK_S = 2.0
"""How long an attempt waits to hear what the earlier ones have in rows. If it does not, all goes to its file."""
FLUSH_S = 2.0
"""How long the end of a job waits for Redis to take its last progress."""

logger = log.get(__name__)


class Waiting:
    """Progress and previews that were not sent yet, bounded. Pure."""

    def __init__(self, limit: int = PROGRESS_A_ROUND) -> None:
        self._limit = limit
        self.replaced: Counter[EventKind] = Counter()
        """How many events are not taken, because a newer one of their rank stands for them."""
        self._progress: deque[HostEvent] = deque()
        self._previews: dict[int | None, HostEvent] = {}

    def add(self, event: HostEvent) -> None:
        if event.kind is EventKind.PREVIEW:
            self.replaced[EventKind.PREVIEW] += event.rank in self._previews
            self._previews[event.rank] = event
            return
        self._progress.append(event)
        if len(self._progress) > self._limit:
            newest = {waiting.rank: waiting for waiting in self._progress}
            self.replaced[EventKind.PROGRESS] += len(self._progress) - len(newest)
            self._progress = deque(newest.values())

    def take(self) -> list[HostEvent]:
        """All that waits, in order; previews come last."""
        taken = [*self._progress, *self._previews.values()]
        self._progress.clear()
        self._previews.clear()
        return taken


class Reporter:
    """Of one attempt, around its run. Leaving it stores the lines that are left, while the lease lives."""

    def __init__(self, db: AsyncEngine, bus: Bus, attempt: Attempt, metrics: NodeMetrics, spill: Spill) -> None:
        self._db, self._bus, self._attempt, self._metrics, self._spill = db, bus, attempt, metrics, spill
        self._seq, self._sent = attempt.claim.seq, 0
        self._waiting = Waiting()
        self._lines: list[dict[str, Any]] = []
        self._log_bytes = 0
        self._has_live, self._has_lines, self._closing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._has_spilled = asyncio.Event()
        self._live: asyncio.Task[None] | None = None
        self._storing: asyncio.Task[None] | None = None
        self._spilling: asyncio.Task[None] | None = None

    def report(self, event: HostEvent) -> None:
        """Take an event of the app. Never waits."""
        self._attempt.progressed()
        if event.kind is EventKind.LOG:
            self._add_line(event)
            return
        self._waiting.add(event)
        self._has_live.set()
        self._live = self._live or asyncio.create_task(self._send_live())  # most short jobs say nothing
        if event.kind is EventKind.PROGRESS:
            self._attempt.newest_progress = event.data

    async def __aenter__(self) -> Self:
        if self._attempt.claim.attempt > 1:
            self._log_bytes = await self._bytes_of_earlier()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self._has_live.set()
        self._has_lines.set()
        self._has_spilled.set()
        if self._live is not None:
            await asyncio.wait([self._live], timeout=FLUSH_S)
            self._live.cancel()
        if self._storing is not None:
            lost = asyncio.create_task(self._attempt.lease_lost.wait())
            await asyncio.wait([self._storing, lost], return_when=asyncio.FIRST_COMPLETED)
            self._storing.cancel()
            lost.cancel()
        begun = [task for task in (self._live, self._storing, self._spilling) if task is not None]
        for ended in await asyncio.gather(*begun, return_exceptions=True):
            if isinstance(ended, Exception):
                logger.error("reporting_failed", exc_info=ended, **self._attempt.names)
        for kind, count in self._waiting.replaced.items():
            self._metrics.dropped.labels(kind.value).inc(count)

    async def _send_live(self) -> None:
        while True:
            await self._has_live.wait()
            self._has_live.clear()
            for event in self._waiting.take():
                await self._send(event)
            if self._closing.is_set() and not self._has_live.is_set():
                return
            await _pass_time(self._closing, PROGRESS_EVERY_S)

    async def _send(self, event: HostEvent) -> None:
        self._sent += 1
        attempt = self._attempt.claim.attempt
        data = {"rank": event.rank, "attempt": attempt, **event.data}
        numbered = Event(EventId(self._seq, attempt, self._sent), event.kind, data, datetime.now(UTC))
        is_sent = False
        try:
            is_sent = await self._bus.progress(self._attempt.claim.job_id, numbered)
        except orjson.JSONEncodeError as error:  # an integer beyond 64 bits, half of a surrogate pair
            logger.warning("progress_dropped", error=str(error), rank=event.rank, **self._attempt.names)
        (self._metrics.published if is_sent else self._metrics.dropped).labels(event.kind.value).inc()

    def _add_line(self, event: HostEvent) -> None:
        self._storing = self._storing or asyncio.create_task(self._store_lines())
        line: dict[str, Any] = {"rank": event.rank, "attempt": self._attempt.claim.attempt, **event.data}
        if not self._spill.is_used:
            self._log_bytes += len(repr(line).encode(errors="replace"))
            if self._log_bytes <= LOG_BYTES_PER_JOB:
                self._lines.append(line)
                self._has_lines.set()
                return
            note = "Further log lines go to a file, which is linked here when this attempt ends."
            self._lines.append({"attempt": self._attempt.claim.attempt, "message": note})
            self._has_lines.set()
        self._spill.add(line)
        self._has_spilled.set()
        self._spilling = self._spilling or asyncio.create_task(self._write_spilled())

    async def _bytes_of_earlier(self) -> int:
        try:
            async with asyncio.timeout(LOOK_S):
                return await job_logs.bytes_in_rows(self._db, self._attempt.claim.job_id)
        except Exception as error:
            if not (is_passing(error) or isinstance(error, TimeoutError)):
                raise
            return LOG_BYTES_PER_JOB

    async def _write_spilled(self) -> None:
        while not self._closing.is_set():
            await self._has_spilled.wait()
            self._has_spilled.clear()
            await self._spill.write()
            await _pass_time(self._closing, LOG_BATCH_S)

    async def _store_lines(self) -> None:
        stored_at = -math.inf
        while True:
            await self._has_lines.wait()
            if not self._closing.is_set():
                await _pass_time(self._closing, lines_wait_s(time.monotonic() - stored_at))
            stored_at = time.monotonic()
            self._has_lines.clear()
            lines, self._lines = self._lines, []
            if lines and not await self._store(lines):
                self._lines = lines + self._lines
                self._has_lines.set()
                await asyncio.sleep(RETRY_S)
            elif self._closing.is_set() and not self._lines:
                return

    async def _store(self, lines: list[dict[str, Any]]) -> bool:
        """Whether the lines need no further try."""
        try:
            self._seq = await jobs.append_events(
                self._db, self._attempt.lease, [(EventKind.LOG, line) for line in lines]
            )
        except LeaseLost:
            self._attempt.stop(StopReason.LEASE_LOST)
            return True
        except Exception as error:
            if not is_passing(error) or isinstance(error, StokerError):
                raise
            logger.warning("log_lines_kept", lines=len(lines), next="tries again", **self._attempt.names)
            return False
        reach(Point.NODE_LOGGED)
        self._metrics.persisted.labels(EventKind.LOG.value).inc(len(lines))
        await self._bus.wake(self._attempt.claim.job_id, self._seq, self._attempt.claim.tenant_id)
        return True


def lines_wait_s(since_stored_s: float) -> float:
    """How long lines wait to become rows, when the last ones did so long ago. Pure."""
    return max(LOG_SOON_S, LOG_BATCH_S - since_stored_s)


async def _pass_time(unless: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await unless.wait()
    except TimeoutError:
        return
