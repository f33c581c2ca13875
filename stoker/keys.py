"""API keys and the tenants that they speak for.

A key is ``<id>:<secret>``; only the sha256 of the secret is stored. The API verifies keys, the CLI and admins make
them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import audit, sql
from stoker.database import reading
from stoker.errors import InvalidRequest, NotFound, Unauthenticated
from stoker.ids import new_id
from stoker.tables import api_keys, tenants

SCOPES = frozenset({"run", "read", "admin"})
ID_CHARACTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class NewKey:
    """A key just made: the only moment at which ``key``, with its secret, is known."""

    id: str
    key: str
    tenant_id: UUID


@dataclass(frozen=True)
class Caller:
    """Whose request it is and what they may do."""

    key_id: str
    tenant_id: UUID
    tenant_name: str
    scopes: frozenset[str]
    best_priority: int
    max_requests_per_s: float | None = None
    max_waiting: int | None = None


@dataclass(frozen=True)
class KeyRow:
    """A key as a list shows it."""

    id: str
    tenant_id: UUID
    tenant_name: str
    name: str
    scopes: frozenset[str]
    best_priority: int
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


async def create(
    db: AsyncEngine,
    *,
    tenant: str = "default",
    scopes: frozenset[str],
    name: str = "",
    expires_at: datetime | None = None,
    best_priority: int = 0,
    by: Caller | None = None,
) -> NewKey:
    """Make a key for ``tenant``, which is made too if it is new.

    Raises:
        InvalidRequest: an unknown scope, or none.
    """
    if not scopes or not scopes <= SCOPES:
        wrong = ", ".join(sorted(scopes - SCOPES)) or "none"
        raise InvalidRequest(f"unknown scopes: {wrong}", hint=f"Scopes are {', '.join(sorted(SCOPES))}.")
    key_id = "sk_" + "".join(secrets.choice(ID_CHARACTERS) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    async with db.begin() as tx:
        await tx.execute(insert(tenants).values(id=new_id(), name=tenant).on_conflict_do_nothing())
        tenant_id: UUID = (await tx.execute(select(tenants.c.id).where(tenants.c.name == tenant))).scalar_one()
        await tx.execute(
            insert(api_keys).values(
                id=key_id,
                tenant_id=tenant_id,
                secret_sha256=_digest(secret),
                scopes=sorted(scopes),
                name=name,
                best_priority=best_priority,
                expires_at=expires_at,
            )
        )
        data = {"tenant": tenant, "scopes": sorted(scopes), "expires_at": expires_at and expires_at.isoformat()}
        await audit.record(tx, "key.create", key_id, by=by, about=tenant_id, **data)
    return NewKey(key_id, f"{key_id}:{secret}", tenant_id)


async def verify(db: AsyncEngine, presented: str) -> Caller:
    """Find whose key ``presented`` is.

    Raises:
        Unauthenticated: it is no key, or not one that is valid now.
    """
    key_id, _, secret = presented.partition(":")
    rows = await sql.ask(db, "find_key", {"key_id": key_id.replace("\0", "")})
    found = rows[0] if rows else None
    # Compared even where there is nothing to compare with, so that the time taken tells nothing about ids.
    matches = hmac.compare_digest(_digest(secret), b"" if found is None else bytes(found["secret_sha256"]))
    if found is None or not matches or not found["is_valid"]:
        raise Unauthenticated("the key is not valid")
    return caller_of(found)


def caller_of(row: Mapping[str, Any]) -> Caller:
    """Whose key it is that ``find_key`` has found."""
    return Caller(
        row["id"],
        row["tenant_id"],
        row["tenant_name"],
        frozenset(row["scopes"]),
        row["best_priority"],
        row["max_requests_per_s"],
        row["max_waiting"],
    )


async def list_keys(db: AsyncEngine, tenant_id: UUID | None = None) -> list[KeyRow]:
    """The keys of a tenant, or of all."""
    chosen = select(api_keys, tenants.c.name.label("tenant_name")).join(tenants).order_by(api_keys.c.created_at)
    if tenant_id is not None:
        chosen = chosen.where(api_keys.c.tenant_id == tenant_id)
    async with reading(db) as tx:
        found = (await tx.execute(chosen)).all()
    return [
        KeyRow(
            id=row.id,
            tenant_id=row.tenant_id,
            tenant_name=row.tenant_name,
            name=row.name,
            scopes=frozenset(row.scopes),
            best_priority=row.best_priority,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )
        for row in found
    ]


async def ended(db: AsyncEngine, key_ids: Collection[str]) -> set[str]:
    """Those of these keys that are revoked or past their time."""
    is_over = api_keys.c.revoked_at.is_not(None) | (api_keys.c.expires_at <= func.stoker_now())
    async with reading(db) as tx:
        found = await tx.execute(select(api_keys.c.id).where(api_keys.c.id.in_(key_ids), is_over))
        return set(found.scalars())


async def revoke(db: AsyncEngine, key_id: str, tenant_id: UUID | None = None, *, by: Caller | None = None) -> None:
    """End a key for ever. Replicas of the API hear of it within half a second.

    Raises:
        NotFound: there is none with this id.
    """
    which = api_keys.c.id == key_id
    if tenant_id is not None:
        which &= api_keys.c.tenant_id == tenant_id
    at = func.coalesce(api_keys.c.revoked_at, func.stoker_now())
    async with db.begin() as tx:
        ended = await tx.execute(update(api_keys).where(which).values(revoked_at=at).returning(api_keys.c.tenant_id))
        owner = ended.scalar_one_or_none()
        if owner is None:
            raise NotFound(f"there is no key {key_id!r}")
        await audit.record(tx, "key.revoke", key_id, by=by, about=owner)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
