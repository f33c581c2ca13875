"""The audit log: a row for each act of an admin, written in the transaction of the act itself.

It only writes and lists. Who acts calls ``record`` (statements in ``stoker.sql`` and SQL functions for admins write
rows of their own); nothing changes one, and its age alone deletes it (``stoker.sweeps``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stoker.database import reading
from stoker.tables import audit_log

if TYPE_CHECKING:
    from stoker.keys import Caller


@dataclass(frozen=True)
class AuditRow:
    """An act. Without ``key_id`` it was done on the database itself, by ``role``."""

    id: int
    at: datetime
    action: str
    target: str
    data: dict[str, Any]
    key_id: str | None
    role: str | None


async def record(
    tx: AsyncConnection, action: str, target: str, *, by: Caller | None, about: UUID | None = None, **data: Any
) -> None:
    """Write that ``by`` (None: whoever holds the database's password) did this to ``target``.

    ``about`` is the tenant whose thing it is. ``data`` says how; no secret may stand in it.
    """
    row = {"tenant_id": by and by.tenant_id, "key_id": by and by.key_id, "about_tenant": about}
    await tx.execute(insert(audit_log).values(action=action, target=target, data=data, **row))


async def list_acts(db: AsyncEngine, tenant_id: UUID, *, before: int | None, limit: int) -> list[AuditRow]:
    """Acts by a tenant's keys or on what is the tenant's, newest first; those before the act numbered ``before``."""
    chosen = (
        select(audit_log)
        .where(or_(audit_log.c.tenant_id == tenant_id, audit_log.c.about_tenant == tenant_id))
        .order_by(audit_log.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        chosen = chosen.where(audit_log.c.id < before)
    async with reading(db) as tx:
        found = (await tx.execute(chosen)).all()
    return [AuditRow(row.id, row.at, row.action, row.target, row.data, row.key_id, row.role) for row in found]
