"""Metrics for Prometheus: requests, streams, and open jobs as Postgres counts them at the time of the scrape."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.database import is_unreachable

OPEN_JOBS = text("""
SELECT app, sum(scheduled) AS scheduled, sum(queued) AS queued, sum(running) AS running FROM v_queue_depth GROUP BY app
""")


class Metrics:
    """A registry of its own, so that two applications in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "stoker_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "stoker_http_request_seconds", "Time to the first byte.", ("method", "route"), registry=self.registry
        )
        self.streams = Gauge("stoker_sse_clients", "Open event streams.", registry=self.registry)
        self.jobs = Gauge("stoker_jobs", "Jobs that are not final.", ("app", "state"), registry=self.registry)

    async def render(self, db: AsyncEngine) -> bytes:
        """The exposition text, with open jobs read now; without them while Postgres is away."""
        self.jobs.clear()
        try:
            async with db.connect() as connection:
                rows = (await connection.execute(OPEN_JOBS)).all()
        except Exception as error:
            if not is_unreachable(error):
                raise
            rows = []
        for row in rows:
            self.jobs.labels(row.app, "scheduled").set(row.scheduled)
            self.jobs.labels(row.app, "queued").set(row.queued)
            self.jobs.labels(row.app, "running").set(row.running)
        return generate_latest(self.registry)
