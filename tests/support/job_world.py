"""A migrated database with an app, tenants and nodes in it, and a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, jobs, keys, nodes
from stoker.apps import AppVersion
from stoker.database import make_engine
from stoker.errors import AppError
from stoker.job_values import Claim, ClaimRequest, ErrorReport, Failed, NewJob, QueueKey, Submitted, Succeeded, Usage
from stoker.manifest import EndpointManifest, Manifest
from tests.support.clock import set_clock
from tests.support.patience import waiting_for

LEASE_S = 15.0
DONE = Succeeded({"ok": True})
USER_ERROR = Failed(ErrorReport.of(AppError("no such style", type_name="KeyError")))
RETRYABLE = Failed(ErrorReport(code="app_error", message="try later", retryable=True))
CRASH = Failed(ErrorReport(code="worker_crashed", message="rank 1 died", crash=True, retryable=True))


def endpoint(path: str = "/", *, uses_gpus: bool = True, **changes: Any) -> EndpointManifest:
    given = {
        "path": path,
        "kind": "inference",
        "input_schema": {"type": "object"},
        "output_schema": {"type": "object"},
        "uses_gpus": uses_gpus,
        "run_timeout_s": 60.0,
        "start_timeout_s": None,
        "stall_timeout_s": None,
        "max_attempts": 1,
        "summary": "",
    }
    return EndpointManifest(**given | changes)


def manifest(app: str = "acme/echo", *endpoints: EndpointManifest, **changes: Any) -> Manifest:
    texts = {"title": "Echo", "description": "", "num_gpus": 2} | changes
    return Manifest(app=app, endpoints=endpoints or (endpoint(),), **texts)


@dataclass
class Node:
    """A node as Postgres sees it: what it claims, renews and finishes."""

    db: AsyncEngine
    id: str
    queues: tuple[QueueKey, ...]
    boot_id: UUID = field(default_factory=uuid4)

    @property
    def request(self) -> ClaimRequest:
        return ClaimRequest(self.id, self.boot_id, self.queues, runner="r0", lease_s=LEASE_S)

    async def register(self) -> list[UUID]:
        versions = list({queue.version_id for queue in self.queues})
        return await nodes.register(
            self.db, nodes.NodeInfo(self.id, self.boot_id, "host", 2, [], versions, 1, "0", LEASE_S)
        )

    async def claim(self) -> Claim | None:
        return await jobs.claim(self.db, self.request)

    async def take(self) -> Claim:
        claim = await self.claim()
        assert claim is not None, "there was nothing to claim"
        return claim

    async def renew(self, *claims: Claim, progress: dict[UUID, dict[str, Any]] | None = None) -> jobs.Renewal:
        return await jobs.renew(
            self.db,
            node_id=self.id,
            boot_id=self.boot_id,
            leases=[claim.lease for claim in claims],
            lease_s=LEASE_S,
            progress=progress or {},
        )

    async def finish(self, claim: Claim, outcome: jobs.Outcome = DONE, gpu_seconds: float = 1.0) -> jobs.Finished:
        return await jobs.finish(self.db, claim.lease, outcome, Usage(gpu_seconds, 2, True, {"run": 1.0}))


@dataclass
class World:
    """What a test acts in. ``default`` is the version of an app with one endpoint that needs GPUs."""

    db: AsyncEngine
    default: AppVersion
    tenant_id: UUID
    began: datetime

    async def tenant(self, name: str) -> UUID:
        return (await keys.create(self.db, tenant=name, scopes=frozenset({"run"}))).tenant_id

    async def node(self, node_id: str = "n1", versions: Sequence[AppVersion] = ()) -> Node:
        queues = tuple(
            QueueKey(version.id, uses_gpus) for version in versions or [self.default] for uses_gpus in (True, False)
        )
        node = Node(self.db, node_id, queues)
        await node.register()
        return node

    async def submit(self, **changes: Any) -> Submitted:
        return await jobs.submit(self.db, self.new_job(**changes))

    def new_job(self, **changes: Any) -> NewJob:
        given = {"tenant_id": self.tenant_id, "version": self.default, "endpoint": "/", "input": {}}
        return NewJob(**given | changes)

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        async with self.db.begin() as tx:
            answer = await tx.execute(text(query), values)
            return [dict(row) for row in answer.mappings()] if answer.returns_rows else []

    async def value(self, query: str, **values: Any) -> Any:
        [row] = await self.rows(query, **values)
        [value] = row.values()
        return value

    async def everything(self) -> dict[str, list[dict[str, Any]]]:
        """All rows that a job's life leaves, to see that nothing changed."""
        tables = ("jobs", "job_heads", "job_attempts", "job_leases", "job_events", "job_outputs", "usage_records")
        tables += ("webhook_deliveries", "queue_lanes")
        return {table: await self.rows(f"SELECT * FROM {table} t ORDER BY t::text") for table in tables}

    async def invariants(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM v_invariants")

    async def set_clock(self, after_s: float) -> None:
        """Let stoker_now() stand at ``after_s`` seconds after the world began."""
        await set_clock(self.db, self.began + timedelta(seconds=after_s))


@asynccontextmanager
async def new_world(database_url: str, *, pool_size: int = 5, frozen: bool = True) -> AsyncIterator[World]:
    db = make_engine(database_url, application_name="test", pool_size=pool_size)
    version = await apps.publish(db, manifest())
    key = await keys.create(db, scopes=frozenset({"run"}))
    async with db.begin() as tx:
        began = (await tx.execute(text("SELECT now()"))).scalar_one()
    world = World(db, version, key.tenant_id, began)
    if frozen:
        await world.set_clock(0)
    try:
        yield world
    finally:
        await asyncio.shield(db.dispose())


async def until_blocked(database_url: str, sessions: int = 1) -> None:
    """Return once so many sessions of this database wait for another one's lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    waiting = 0
    connecting = psycopg.AsyncConnection.connect(database_url, autocommit=True)
    blocked = waiting_for(lambda: f"{sessions} sessions to be blocked: {waiting} are", 20)
    async with blocked, await connecting as watching:
        while waiting < sessions:
            [[waiting]] = await (await watching.execute(waits)).fetchall()
