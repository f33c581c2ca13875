"""The clock of events: it goes on rising when the database is restored, or another server takes its place.

Marks are transaction numbers, and those of another server start anew, or go back to what a backup knew. Then the clock
leaps past every mark that was ever given, and a new era begins: who comes back with a place of an older one is told
that something may be missing. How far to leap no backup can tell, since later lives may have been lost with it: the
time can. A volume that was set back is the same server to us; ``stoker.tenant_events`` tells it by places from beyond
the horizon. The control loop calls.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import log
from stoker.database import reading

LEAP = 2**40
"""More than the transactions of a lifetime."""
PER_SECOND = 2**30
"""More than the transactions of a second: marks of an era are below those of each that begins later."""
FIRST_ERA_AT = 1577836800
"""2020-01-01: eras are named by the seconds since, so that no two have the same name."""

HAS_MOVED = text("SELECT server <> stoker_server() FROM event_clock")
# Behind the table's lock: whoever writes events by the old clock has committed.
WAIT_FOR_WRITERS = text("LOCK TABLE job_events IN SHARE ROW EXCLUSIVE MODE")
BEGIN_ERA = text("""
UPDATE event_clock SET era = greatest(era + 1, n.at), base = greatest(base + :leap, n.at * :per_second),
    server = stoker_server()
FROM (SELECT extract(epoch FROM stoker_now())::bigint - :first AS at) n
WHERE server <> stoker_server() RETURNING era
""")

logger = log.get(__name__)


async def keep(db: AsyncEngine) -> bool:
    """Begin a new era if this is another server than the last time. Any number of processes may ask."""
    async with reading(db) as tx:
        if not (await tx.execute(HAS_MOVED)).scalar_one():
            return False
    values = {"leap": LEAP, "per_second": PER_SECOND, "first": FIRST_ERA_AT}
    async with db.begin() as tx:
        await tx.execute(WAIT_FOR_WRITERS)
        era = (await tx.execute(BEGIN_ERA, values)).scalar_one_or_none()
    if era is not None:
        logger.warning("event_era_begun", era=era, reason="another server, or one that was restored")
    return era is not None
