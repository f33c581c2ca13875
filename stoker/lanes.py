"""Lanes: one tenant's part of a queue, and what keeps them in order.

Whoever touches several lanes holds the app's advisory lock first. It decides nothing about a job. ``stoker.jobs`` wakes
lanes; the control loop tends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import sql
from stoker.database import Connection, transaction
from stoker.each_app import each_app
from stoker.errors import QueueFull, TenantQueueFull
from stoker.job_values import NewJob

GRAIN_S = 10.0
"""An attempt is charged as it runs once it has run so much longer than it was charged for."""


def entering(row: Mapping[str, Any], new: NewJob) -> list[sql.Step]:
    """The first steps of a submit: that there is room for ``new`` where it needs some, and that its lane is there.

    Of ``row`` is what they need. What they answer says whether ``refused_for``.
    """
    if not new.needs_room:
        return [("make_lane", row)]
    limited = {**row, "most_waiting": new.most_waiting, "tenant_most_waiting": new.tenant_most_waiting}
    # Whoever counts must not be overtaken by who also counts. In one order, for a submit may take both.
    locks: list[sql.Step] = []
    if new.tenant_most_waiting is not None:
        locks.append(("lock_room_of_tenant", limited))
    if new.version.max_queue_length is not None or new.most_waiting is not None:
        locks.append(("lock_room", limited))
    return [*locks, ("take_room", limited), ("make_lane+room", limited)]


def refused_for(room: Mapping[str, Any], new: NewJob) -> QueueFull:
    """What its caller is told of a job for which there is no ``room``. Pure."""
    if new.tenant_most_waiting is not None and (room["tenant_waiting"] or 0) >= new.tenant_most_waiting:
        return TenantQueueFull(f"{new.tenant_most_waiting} of your jobs wait, and no more may")
    return QueueFull(f"{room['limit']} jobs of {room['app']!r} wait, and no more may")


async def enter(tx: Connection, row: Mapping[str, Any], new: NewJob) -> None:
    """The same steps, in a transaction that begins with them or has said something before.

    Raises:
        QueueFull: as many jobs of the app, or of the tenant, wait as may. One that the tenant made before, by its key,
            needs no room.
    """
    for name, values in entering(row, new):
        answer = await sql.run(tx, name, values)
        if name == "take_room" and (room := await answer.fetchone()) is not None and not room["has_room"]:
            raise refused_for(room, new)


async def wake(tx: Connection, ready: Iterable[Mapping[str, Any]]) -> None:
    """Make the lanes of these jobs claimable; the same statement sets the lane's best priority.

    Each of ``ready`` has version_id, uses_gpus, tenant_id and priority.
    """
    best: dict[tuple[UUID, bool, UUID], int] = {}
    for job in ready:
        key = (job["version_id"], job["uses_gpus"], job["tenant_id"])
        best[key] = min(job["priority"], best.get(key, job["priority"]))
    for (version_id, uses_gpus, tenant_id), priority in sorted(best.items()):
        lane = {"version_id": version_id, "uses_gpus": uses_gpus, "tenant_id": tenant_id}
        await sql.run(tx, "wake_lane", lane | {"priority": priority, "job_id": None})


async def tend(db: AsyncEngine) -> None:
    """One tick: empty lanes to sleep, priority hints right, what sleeps on a ready job woken, wrong counts repaired."""
    async with transaction(db) as tx:
        untidy = [row["app_id"] for row in await sql.rows(tx, "find_lanes_to_tend", {})]
    for app_id in untidy:
        async with transaction(db) as tx:
            await sql.run(tx, "lock_app", {"app_id": app_id})
            empty = await sql.rows(tx, "hold_empty_lanes", {"app_id": app_id})
            held = {
                "versions": [lane["version_id"] for lane in empty],
                "gpus": [lane["uses_gpus"] for lane in empty],
                "tenants": [lane["tenant_id"] for lane in empty],
            }
            await sql.run(tx, "sleep_lanes", held)
            await sql.run(tx, "repair_lanes", {"app_id": app_id})


async def charge_running(db: AsyncEngine, *, limit: int = 500) -> None:
    """Charge lanes for what their running attempts have taken so far; the attempts' ends put it right."""

    async def charge(tx: Connection, found: list[DictRow]) -> list[None]:
        await sql.run(tx, "charge_running", {"job_ids": [row["job_id"] for row in found]})
        return []

    await each_app(db, "find_uncharged", {"grain_s": GRAIN_S, "limit": limit}, charge)
