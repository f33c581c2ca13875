"""Tenants with a key and a client, for tests of the API."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import keys
from tests.support.api_server import RunningApi


@dataclass(frozen=True)
class Tenant:
    id: UUID
    key: str
    http: httpx2.AsyncClient


async def make_client(api: RunningApi, *scopes: str, tenant: str | None = None, best_priority: int = 0) -> Tenant:
    made = await keys.create(
        api.here.db,
        tenant=tenant or f"tenant-{uuid4().hex[:8]}",
        scopes=frozenset(scopes),
        best_priority=best_priority,
    )
    client = httpx2.AsyncClient(base_url=api.url, headers={"authorization": f"Key {made.key}"}, timeout=20)
    return Tenant(made.tenant_id, made.key, client)


async def count_jobs(db: AsyncEngine, tenant_id: UUID) -> int:
    async with db.connect() as connection:
        found = await connection.execute(text("SELECT count(*) FROM jobs WHERE tenant_id = :id"), {"id": tenant_id})
        return int(found.scalar_one())
