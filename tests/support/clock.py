"""The clock that a database's statements go by, set by a test."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


async def set_clock(db: AsyncEngine, at: datetime) -> None:
    """Let stoker_now() of this database stand at ``at``."""
    setting = f"ALTER DATABASE %I SET stoker.now = '{at.isoformat()}'"
    async with db.begin() as tx:
        await tx.execute(text(f"DO $$ BEGIN EXECUTE format($set${setting}$set$, current_database()); END $$"))
    await db.dispose()  # the setting is read when a session begins
