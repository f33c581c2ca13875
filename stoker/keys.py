"""API keys and the tenants that they speak for.

A key is ``<id>:<secret>``; only the sha256 of the secret is stored. The API verifies keys, the CLI and admins make
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

SCOPES = frozenset({"run", "read", "admin"})


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
) -> NewKey:
    """Make a key for ``tenant``, which is made too if it is new.

    Raises:
        InvalidRequest: an unknown scope, or none.
    """
    raise NotImplementedError


async def verify(db: AsyncEngine, presented: str) -> Caller:
    """Find whose key ``presented`` is.

    Raises:
        Unauthenticated: it is no key, or not one that is valid now.
    """
    raise NotImplementedError


async def list_keys(db: AsyncEngine, tenant_id: UUID | None = None) -> list[KeyRow]:
    """The keys of a tenant, or of all."""
    raise NotImplementedError


async def revoke(db: AsyncEngine, key_id: str, tenant_id: UUID | None = None) -> None:
    """End a key for ever.

    Raises:
        NotFound: there is none with this id.
    """
    raise NotImplementedError
