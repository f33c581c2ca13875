"""Signing keys: what webhooks are signed with, and how they are replaced.

A tenant has secrets (HMAC), the installation has key pairs (ed25519). While one is replaced two are valid: the new one
from its first moment, the old one for a while. It signs nothing (``api.control.signatures`` does); admins' routes and
the command line make, list and retire keys here.
"""

from __future__ import annotations

import base64
import secrets
import string
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import ColumnElement, Row, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stoker import audit
from stoker.database import reading
from stoker.errors import Conflict, NotFound
from stoker.keys import Caller
from stoker.tables import signing_keys, tenants

SECRET, PAIR = "secret", "pair"
"""The kinds, as ``algorithm`` has them. Rows of any other are those of a former release."""
SECRET_BYTES = 32
OVERLAP = {SECRET: timedelta(hours=24), PAIR: timedelta(hours=48)}
"""How long the old one stays valid. Receivers keep the public keys for up to 24 hours."""
LAST_SIGNATURE = timedelta(minutes=10)
"""So long before its end a key signs no more: what it has signed last is verified with it."""

ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('stoker signing_keys', 0))")
CHARACTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class SigningKey:
    """A key as a list shows it; ``shown`` is what receivers verify with: a pair's public part, never a secret."""

    id: str
    kind: str
    tenant: str | None
    created_at: datetime
    retired_at: datetime | None
    shown: str | None


@dataclass(frozen=True)
class NewSecret:
    """A secret just made."""

    id: str
    secret: str


@dataclass(frozen=True)
class Signers:
    """What signs now: pairs by their age, the oldest first, and the secrets of each tenant."""

    pairs: tuple[bytes, ...]
    secrets: dict[UUID, tuple[bytes, ...]]


async def signers(db: AsyncEngine, tenant_ids: Collection[UUID]) -> Signers:
    """The keys that sign deliveries of these tenants now. The first pair is made here, at its first use."""
    of_these = or_(signing_keys.c.tenant_id.is_(None), signing_keys.c.tenant_id.in_(tenant_ids))
    found = await _read(db, _is_valid(LAST_SIGNATURE) & of_these)
    pairs = tuple(bytes(row.private_key) for row in found if row.algorithm == PAIR)
    if not pairs:
        await rotate_pair(db, only_first=True)
        return await signers(db, tenant_ids)
    held = defaultdict[UUID, tuple[bytes, ...]](tuple)
    for row in found:
        if row.algorithm == SECRET:
            held[row.tenant_id] += (bytes(row.private_key),)
    return Signers(pairs, dict(held))


async def public_keys(db: AsyncEngine) -> dict[str, bytes]:
    """The public keys that a receiver may meet, by id. The first pair is made here, if nothing was signed yet."""
    found = await _read(db, _is_valid() & (signing_keys.c.algorithm == PAIR))
    if not found:
        await rotate_pair(db, only_first=True)
        return await public_keys(db)
    return {row.id: bytes(row.public_key) for row in found}


async def rotate_pair(
    db: AsyncEngine, *, at_once: bool = False, only_first: bool = False, by: Caller | None = None
) -> None:
    """Make a new key pair. The one before signs on for a while, or with ``at_once`` is void now.

    Raises:
        Conflict: two are valid already.
    """
    pair = Ed25519PrivateKey.generate()
    public, private = pair.public_key().public_bytes_raw(), pair.private_bytes_raw()
    async with db.begin() as tx:
        await tx.execute(ONE_AT_A_TIME)
        signing = _is_valid(LAST_SIGNATURE) & _of(PAIR, None)
        if only_first and (await tx.execute(select(signing_keys.c.id).where(signing))).first():
            return
        await _replace(tx, PAIR, None, "wk_", public, private, at_once=at_once, by=by)


async def rotate_secret(
    db: AsyncEngine, tenant_id: UUID, *, at_once: bool = False, by: Caller | None = None
) -> NewSecret:
    """Make a new secret of a tenant. The one before signs on for a while, or with ``at_once`` is void now.

    Raises:
        Conflict: two are valid already.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    async with db.begin() as tx:
        await tx.execute(ONE_AT_A_TIME)
        made = await _replace(tx, SECRET, tenant_id, "whs_", b"", secret, at_once=at_once, by=by)
    return NewSecret(made, as_secret(secret))


async def retire(db: AsyncEngine, key_id: str, tenant_id: UUID | None = None, *, by: Caller | None = None) -> None:
    """End a key now: nothing is signed with it any more. With ``tenant_id``: only one of that tenant's.

    Raises:
        NotFound: there is none of this id that is valid.
    """
    which: ColumnElement[bool] = _is_valid() & (signing_keys.c.id == key_id)
    if tenant_id is not None:
        which &= signing_keys.c.tenant_id == tenant_id
    async with db.begin() as tx:
        ended = await tx.execute(
            update(signing_keys).where(which).values(retired_at=func.stoker_now()).returning(signing_keys.c.tenant_id)
        )
        row = ended.one_or_none()
        if row is None:
            raise NotFound(f"there is no valid signing key {key_id[:100]!r}")
        await audit.record(tx, "signing_key.retire", key_id, by=by, about=row.tenant_id)


async def list_keys(db: AsyncEngine, tenant_id: UUID | None = None) -> list[SigningKey]:
    """A tenant's secrets, or all keys, those that are over too."""
    which: ColumnElement[bool] = signing_keys.c.algorithm.in_([SECRET, PAIR])
    if tenant_id is not None:
        which &= signing_keys.c.tenant_id == tenant_id
    return [
        SigningKey(
            row.id,
            row.algorithm,
            row.tenant_name,
            row.created_at,
            row.retired_at,
            _as_public(bytes(row.public_key)) if row.algorithm == PAIR else None,
        )
        for row in await _read(db, which)
    ]


async def valid_secrets(db: AsyncEngine, tenant_id: UUID) -> list[str]:
    """A tenant's secrets themselves, for who may read the database anyway."""
    return [as_secret(bytes(row.private_key)) for row in await _read(db, _is_valid() & _of(SECRET, tenant_id))]


def as_secret(secret: bytes) -> str:
    """As Standard Webhooks writes a secret."""
    return "whsec_" + base64.b64encode(secret).decode()


def _as_public(key: bytes) -> str:
    return "whpk_" + base64.b64encode(key).decode()


async def _replace(
    tx: AsyncConnection,
    kind: str,
    tenant_id: UUID | None,
    prefix: str,
    public: bytes,
    private: bytes,
    *,
    at_once: bool,
    by: Caller | None,
) -> str:
    mine = _is_valid() & _of(kind, tenant_id)
    held = (await tx.execute(select(signing_keys.c.id).where(mine))).scalars().all()
    if len(held) > 1 and not at_once:
        raise Conflict(
            f"two are valid already: {', '.join(sorted(held))}",
            hint="Wait for the older one's end, or end it: DELETE /v1/webhooks/secrets/{id}, 'stoker webhooks retire'.",
        )
    end = func.stoker_now() if at_once else func.stoker_now() + OVERLAP[kind]
    # Never later than was said before: one that is about to end does not come back.
    await tx.execute(update(signing_keys).where(mine).values(retired_at=func.least(signing_keys.c.retired_at, end)))
    key_id = prefix + "".join(secrets.choice(CHARACTERS) for _ in range(12))
    await tx.execute(
        insert(signing_keys).values(
            id=key_id, algorithm=kind, public_key=public, private_key=private, tenant_id=tenant_id
        )
    )
    await audit.record(tx, "signing_key.create", key_id, by=by, about=tenant_id, kind=kind, at_once=at_once)
    return key_id


def _of(kind: str, tenant_id: UUID | None) -> ColumnElement[bool]:
    return (signing_keys.c.algorithm == kind) & signing_keys.c.tenant_id.is_not_distinct_from(tenant_id)


def _is_valid(for_at_least: timedelta = timedelta(0)) -> ColumnElement[bool]:
    return or_(signing_keys.c.retired_at.is_(None), signing_keys.c.retired_at > func.stoker_now() + for_at_least)


async def _read(db: AsyncEngine, which: ColumnElement[bool]) -> list[Row[tuple[object, ...]]]:
    chosen = (
        select(signing_keys, tenants.c.name.label("tenant_name"))
        .join_from(signing_keys, tenants, signing_keys.c.tenant_id == tenants.c.id, isouter=True)
        .where(which)
        .order_by(signing_keys.c.created_at, signing_keys.c.id)
    )
    async with reading(db) as tx:
        return list((await tx.execute(chosen)).all())
