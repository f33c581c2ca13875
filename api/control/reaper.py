"""Reaper: takes back jobs whose lease ran out, but not the moment a database is back that nobody could reach.

While it was away no node could renew, and what they have finished is waiting to be recorded: each node has the length
of its own lease to say so. ``stoker.jobs`` takes the jobs back; ``api.control.duties`` calls.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import jobs, log
from stoker.database import is_unreachable, reading
from stoker.jobs import Moved

NOW = text("SELECT stoker_now()")
STARTED = text("SELECT pg_postmaster_start_time()")

logger = log.get(__name__)


class Reaper:
    """Remembers since when the database can be reached. A process that has just begun asks when the server did."""

    def __init__(self) -> None:
        self._back_since: datetime | None = None
        self._saw_it_away = False

    async def reap(self, db: AsyncEngine) -> list[Moved]:
        """Take back what may be taken back now."""
        try:
            if self._back_since is None:
                async with reading(db) as connection:
                    self._back_since = (await connection.execute(NOW if self._saw_it_away else STARTED)).scalar_one()
                if self._saw_it_away:
                    logger.info("postgres_back", next="leases are spared for their length")
                self._saw_it_away = False
            return await jobs.reap(db, back_since=self._back_since)
        except Exception as error:
            # A lock that one app waits for is no outage, and no other app should wait longer for it.
            if is_unreachable(error):
                self._back_since, self._saw_it_away = None, True
            raise
