"""Nodes and their runners, as they report themselves.

Nothing here moves a job except that a node's new boot gives back what its former boot held, through ``stoker.jobs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import audit, jobs
from stoker.database import reading
from stoker.errors import NotFound
from stoker.keys import Caller
from stoker.tables import app_versions, apps, job_leases, nodes, runners

NodeState = Literal["ready", "draining", "stopped"]


@dataclass(frozen=True)
class NodeInfo:
    """A node that starts. ``lease_s`` is how long it counts as alive after a heartbeat."""

    node_id: str
    boot_id: UUID
    hostname: str
    slots: int
    gpus: list[dict[str, Any]]
    versions: list[UUID]
    pid: int
    version: str
    lease_s: float = 15.0


@dataclass(frozen=True)
class RunnerInfo:
    """What a node says of a runner, in ages: the times are the database's.

    ``slots`` are the numbers of those it occupies, ``pids`` its app host and its ranks.
    """

    name: str
    app: str
    state: str
    world_size: int
    slots: list[int] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    used_ago_s: float | None = None
    quarantined_for_s: float | None = None


@dataclass(frozen=True)
class RunnerRow:
    """A runner as a list shows it: the last report of its node.

    ``used_at`` is when its ranks were last busy, ``quarantined_until`` when its app is tried again after crashes.
    """

    name: str
    app: str
    state: str
    world_size: int
    slots: list[int]
    pids: list[int]
    used_at: datetime | None
    quarantined_until: datetime | None


@dataclass(frozen=True)
class NodeRow:
    """A node as a list shows it. ``is_live``: it is not stopped and its last heartbeat is recent."""

    node_id: str
    boot_id: UUID
    hostname: str
    state: NodeState
    is_live: bool
    slots: int
    gpus: list[dict[str, Any]]
    apps: list[str]
    runners: list[RunnerRow]
    running: int
    pid: int
    version: str
    registered_at: datetime
    heartbeat_at: datetime


async def register(db: AsyncEngine, node: NodeInfo) -> list[UUID]:
    """Make a node known as ready. What its former boot held is released at once: the jobs that were."""
    described = asdict(node)
    row = {"id": described.pop("node_id"), **described, "state": "ready", "drain_requested_at": None}
    fresh = row | {"registered_at": func.stoker_now(), "heartbeat_at": func.stoker_now()}
    async with db.begin() as tx:
        await tx.execute(insert(nodes).values(row).on_conflict_do_update(index_elements=["id"], set_=fresh))
        await tx.execute(delete(runners).where(runners.c.node_id == node.node_id))
    # After the node is known as alive: whether another one could take a job is part of what is decided there.
    return [moved.job_id for moved in await jobs.release_former_boots(db, node.node_id, node.boot_id)]


async def report_runners(db: AsyncEngine, node_id: str, boot_id: UUID, reports: Sequence[RunnerInfo]) -> None:
    """Replace what is known of the node's runners. A former boot's report changes nothing."""
    async with db.begin() as tx:
        ours = (
            select(nodes.c.id).where(nodes.c.id == node_id, nodes.c.boot_id == boot_id).with_for_update(key_share=True)
        )
        if (await tx.execute(ours)).one_or_none() is None:
            return
        await tx.execute(delete(runners).where(runners.c.node_id == node_id))
        if reports:
            await tx.execute(insert(runners).values([_row(node_id, report) for report in reports]))


async def set_state(db: AsyncEngine, node_id: str, boot_id: UUID, state: NodeState) -> None:
    """Say that a node drains or has stopped. A former boot's word changes nothing."""
    async with db.begin() as tx:
        await tx.execute(update(nodes).where(nodes.c.id == node_id, nodes.c.boot_id == boot_id).values(state=state))


async def request_drain(db: AsyncEngine, node_id: str, by: Caller | None = None) -> None:
    """Have a node take no more jobs, finish or give back what it has, and end. It hears of it at its next look.

    Raises:
        NotFound: there is no node of this id that is ready.
    """
    ready = (nodes.c.id == node_id) & (nodes.c.state == "ready")
    async with db.begin() as tx:
        asked = await tx.execute(update(nodes).where(ready).values(drain_requested_at=func.stoker_now()))
        if not asked.rowcount:
            raise NotFound(f"no node {node_id[:200]!r} is ready", hint="GET /v1/nodes lists them with their states.")
        await audit.record(tx, "node.drain", node_id, by=by)


async def is_drain_requested(db: AsyncEngine, node_id: str, boot_id: UUID) -> bool:
    """Whether an admin has asked this boot of the node to drain."""
    mine = (nodes.c.id == node_id) & (nodes.c.boot_id == boot_id)
    async with reading(db) as tx:
        asked = await tx.execute(select(nodes.c.id).where(mine, nodes.c.drain_requested_at.is_not(None)))
        return asked.first() is not None


async def list_nodes(db: AsyncEngine) -> list[NodeRow]:
    """All nodes by id, stopped ones too."""
    served = (
        select(func.coalesce(func.array_agg(apps.c.name.distinct()), []))
        .select_from(app_versions.join(apps))
        .where(app_versions.c.id == nodes.c.versions.any_())
        .scalar_subquery()
    )
    held = select(func.count()).where(job_leases.c.node_id == nodes.c.id).scalar_subquery()
    live = func.stoker_is_live(nodes.c.state, nodes.c.heartbeat_at, nodes.c.lease_s)
    async with reading(db) as tx:
        found = await tx.execute(
            select(nodes, served.label("apps"), held.label("running"), live.label("is_live")).order_by(nodes.c.id)
        )
        reported = (await tx.execute(select(runners).order_by(runners.c.name))).all()
    return [
        NodeRow(
            node_id=row.id,
            boot_id=row.boot_id,
            hostname=row.hostname,
            state=row.state,
            is_live=row.is_live,
            slots=row.slots,
            gpus=row.gpus,
            apps=row.apps,
            runners=[
                RunnerRow(
                    one.name,
                    one.app,
                    one.state,
                    one.world_size,
                    one.slots,
                    one.pids,
                    one.used_at,
                    one.quarantined_until,
                )
                for one in reported
                if one.node_id == row.id
            ],
            running=row.running,
            pid=row.pid,
            version=row.version,
            registered_at=row.registered_at,
            heartbeat_at=row.heartbeat_at,
        )
        for row in found
    ]


def _row(node_id: str, report: RunnerInfo) -> dict[str, Any]:
    row = asdict(report) | {"node_id": node_id}
    used_ago_s, quarantined_for_s = row.pop("used_ago_s"), row.pop("quarantined_for_s")
    row["used_at"] = None if used_ago_s is None else func.stoker_now() - timedelta(seconds=used_ago_s)
    row["quarantined_until"] = (
        None if quarantined_for_s is None else func.stoker_now() + timedelta(seconds=quarantined_for_s)
    )
    return row
