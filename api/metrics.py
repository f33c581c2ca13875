"""Metrics of the API for Prometheus: requests, streams, and open jobs as Postgres counts them.

The count reads every open job, so it is made at most once in a while, however many scrape. Other processes serve their
own (``api.control.metrics``, ``worker_node.metrics``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import log
from stoker.database import is_unreachable, reading
from stoker.events import EventKind
from stoker.metrics import JobCounts

READ_S = 5.0
"""A scraper gives up after ten seconds; requests and streams are worth showing without the open jobs."""

OPEN_JOBS = text("""
SELECT app, sum(scheduled) AS scheduled, sum(queued) AS queued, sum(running) AS running,
       max(oldest_wait_s) AS oldest_wait_s
FROM v_queue_depth GROUP BY app
""")

logger = log.get(__name__)


class Metrics:
    """A registry of its own, so that two applications in one process do not collide."""

    def __init__(self, *, max_age_s: float) -> None:
        self._max_age_s, self._read_at = max_age_s, -float("inf")
        self._reading = asyncio.Lock()
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "stoker_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "stoker_http_request_seconds", "Time to the first byte.", ("method", "route"), registry=self.registry
        )
        self.streams = Gauge("stoker_sse_clients", "Open event streams.", registry=self.registry)
        self.sent = Counter(
            "stoker_sse_events_sent_total", "Events sent to streams.", ("kind",), registry=self.registry
        )
        self._sent_of: dict[EventKind, Counter] = {}
        self.counts = JobCounts(self.registry)
        self._jobs = Gauge("stoker_jobs", "Jobs that are not final.", ("app", "state"), registry=self.registry)
        self._oldest = Gauge(
            "stoker_queue_oldest_wait_seconds",
            "How long the oldest queued job waits.",
            ("app",),
            registry=self.registry,
        )

    def note_sent(self, kind: EventKind) -> None:
        """Count an event that a stream was sent. To find a label's counter takes longer than to count."""
        counter = self._sent_of.get(kind)
        if counter is None:
            counter = self._sent_of[kind] = self.sent.labels(kind.value)
        counter.inc()

    async def render(self, db: AsyncEngine) -> bytes:
        """The exposition text, with open jobs as they were ``max_age_s`` ago at most; without them while Postgres is
        away.
        """
        async with self._reading:
            if time.monotonic() - self._read_at >= self._max_age_s:
                self._show(await self._read(db))
        return generate_latest(self.registry)

    async def _read(self, db: AsyncEngine) -> Sequence[Row[Any]]:
        try:
            async with asyncio.timeout(READ_S), reading(db) as connection:
                rows = (await connection.execute(OPEN_JOBS)).all()
        except Exception as error:
            if not (is_unreachable(error) or isinstance(error, TimeoutError)):
                raise
            logger.warning("open_jobs_not_counted", reason=str(error)[:200], next="counted at a later scrape")
            return ()
        finally:
            self._read_at = time.monotonic()
        return rows

    def _show(self, rows: Sequence[Row[Any]]) -> None:
        self._jobs.clear()
        self._oldest.clear()
        for row in rows:
            self._jobs.labels(row.app, "scheduled").set(row.scheduled)
            self._jobs.labels(row.app, "queued").set(row.queued)
            self._jobs.labels(row.app, "running").set(row.running)
            self._oldest.labels(row.app).set(row.oldest_wait_s or 0.0)
