"""The clock of events: it goes on rising when the database is restored, or another server takes its place.

Marks are transaction numbers, and those of another server start anew, or go back to what a backup knew. Then the clock
leaps past every mark that was ever given, and a new era begins: who comes back with a place of an older one is told
that something may be missing. The control loop calls; ``stoker.tenant_events`` reads by it.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import log
from stoker.database import reading

LEAP = 2**40
"""More than the transactions of a lifetime."""

HAS_MOVED = text("SELECT server <> stoker_server() FROM event_clock")
# Behind the table's lock: whoever writes events by the old clock has committed.
WAIT_FOR_WRITERS = text("LOCK TABLE job_events IN SHARE ROW EXCLUSIVE MODE")
BEGIN_ERA = text("""
UPDATE event_clock SET era = era + 1, base = base + :leap, server = stoker_server()
WHERE server <> stoker_server() RETURNING era
""")

logger = log.get(__name__)


async def keep(db: AsyncEngine) -> bool:
    """Begin a new era if this is another server than the last time. Any number of processes may ask."""
    async with reading(db) as tx:
        if not (await tx.execute(HAS_MOVED)).scalar_one():
            return False
    async with db.begin() as tx:
        await tx.execute(WAIT_FOR_WRITERS)
        era = (await tx.execute(BEGIN_ERA, {"leap": LEAP})).scalar_one_or_none()
    if era is not None:
        logger.warning("event_era_begun", era=era, reason="another server, or one that was restored")
    return era is not None
