"""Waiting: how long jobs have waited that a node could claim if it had room for them.

It reads, and claims nothing. A node asks before it takes another app's slots away.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import sql
from stoker.database import transaction
from stoker.job_values import QueueKey


async def oldest_s(db: AsyncEngine, queue: QueueKey, node_id: str) -> float | None:
    """Seconds that the oldest of them has waited; None: there is none."""
    values = {"version_id": queue.version_id, "uses_gpus": queue.uses_gpus, "node_id": node_id}
    async with transaction(db) as tx:
        found = await sql.row(tx, "find_oldest_waiting", values)
    waited_s: float | None = None if found is None else found["waited_s"]
    return waited_s
