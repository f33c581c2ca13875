"""Deliveries as their tenant sees them: what was sent and what came back, and the wish to have one sent again.

The finishing transaction makes them, ``api.control.deliverer`` sends them. Routes call this.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stoker.database import reading
from stoker.errors import NotFound
from stoker.tables import delivery_attempts, jobs, webhook_deliveries

MOST_TRIES = 100
"""The newest that are shown: one that is sent again by hand for ever has any number."""


@dataclass(frozen=True)
class TryView:
    """One sending. Without a status and an error it is under way, or its sender died and nobody knows."""

    attempt: int
    sent_at: datetime
    status: int | None
    error: str | None
    answer: str | None
    duration_s: float | None


@dataclass(frozen=True)
class DeliveryView:
    """What is owed to a receiver. ``tries`` are the newest, in the order in which they were made."""

    id: UUID
    job_id: UUID
    url: str
    state: str
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    tries: tuple[TryView, ...]


async def of_job(db: AsyncEngine, job_id: UUID, tenant_id: UUID) -> list[DeliveryView]:
    """A job's deliveries: none while it is not final, or if it names no webhook.

    Raises:
        NotFound: the tenant has no such job.
    """
    mine = (jobs.c.id == job_id) & (jobs.c.tenant_id == tenant_id)
    async with reading(db) as tx:
        if (await tx.execute(select(jobs.c.id).where(mine))).first() is None:
            raise NotFound(f"there is no job {job_id}")
        return await _read(tx, webhook_deliveries.c.job_id == job_id)


async def redeliver(db: AsyncEngine, delivery_id: UUID, tenant_id: UUID) -> DeliveryView:
    """Send it again now, whatever became of it, and if need be with all pauses anew. Its id stays.

    Raises:
        NotFound: the tenant has no such delivery.
    """
    mine = (webhook_deliveries.c.id == delivery_id) & (webhook_deliveries.c.tenant_id == tenant_id)
    changes = {
        "state": "pending",
        "next_attempt_at": func.stoker_now(),
        "tries_before": webhook_deliveries.c.attempts,
    }
    async with db.begin() as tx:
        await tx.execute(update(webhook_deliveries).where(mine).values(**changes))
        found = await _read(tx, mine)
    if not found:
        raise NotFound(f"there is no delivery {delivery_id}")
    return found[0]


async def _read(tx: AsyncConnection, which: ColumnElement[bool]) -> list[DeliveryView]:
    found = (await tx.execute(select(webhook_deliveries).where(which))).all()
    newest = (
        select(delivery_attempts)
        .where(delivery_attempts.c.delivery_id.in_([row.id for row in found]))
        .order_by(delivery_attempts.c.attempt.desc())
        .limit(MOST_TRIES)
    )
    tries = defaultdict[UUID, list[TryView]](list)
    for row in reversed((await tx.execute(newest)).all()):
        tries[row.delivery_id].append(
            TryView(row.attempt, row.sent_at, row.status, row.error, row.answer, row.duration_s)
        )
    return [
        DeliveryView(
            row.id,
            row.job_id,
            row.url,
            row.state,
            row.attempts,
            row.created_at,
            row.next_attempt_at,
            row.delivered_at,
            tuple(tries[row.id]),
        )
        for row in found
    ]
