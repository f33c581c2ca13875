"""Lanes: one tenant's part of a queue, and what keeps them in order.

Whoever touches several lanes holds the app's advisory lock first. It decides nothing about a job. ``stoker.jobs`` wakes
lanes; the control loop tends them.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine


async def tend(db: AsyncEngine) -> None:
    """One tick: empty lanes to sleep, priority hints right, what sleeps on a ready job woken, wrong counts repaired."""
    raise NotImplementedError
