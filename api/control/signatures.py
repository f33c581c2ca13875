"""Signatures of webhooks, as Standard Webhooks describes them: HMAC-SHA256 over id, timestamp and body.

Pure but for ``signing_key``, which keeps one key in Postgres. A tenant's secret is derived from it, so that the secret
of one tenant says nothing about another's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

KEY_ID = "webhooks-1"
ALGORITHM = "hmac-sha256"
KEY_BYTES = 32

MAKE = text("""
INSERT INTO signing_keys (id, algorithm, public_key, private_key) VALUES (:id, :algorithm, ''::bytea, :key)
ON CONFLICT (id) DO NOTHING
""")
READ = text("SELECT private_key FROM signing_keys WHERE id = :id")


async def signing_key(db: AsyncEngine) -> bytes:
    """The installation's key, made at its first use."""
    async with db.begin() as connection:
        found = (await connection.execute(READ, {"id": KEY_ID})).scalar_one_or_none()
        if found is None:
            new = {"id": KEY_ID, "algorithm": ALGORITHM, "key": secrets.token_bytes(KEY_BYTES)}
            await connection.execute(MAKE, new)
            found = (await connection.execute(READ, {"id": KEY_ID})).scalar_one()
        return bytes(found)


def tenant_secret(key: bytes, tenant_id: UUID) -> str:
    """What a tenant verifies its webhooks with: ``whsec_`` and base64."""
    return "whsec_" + base64.b64encode(_secret(key, tenant_id)).decode()


def headers(key: bytes, tenant_id: UUID, *, delivery_id: UUID, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one delivery attempt."""
    signed = b"%s.%d.%s" % (str(delivery_id).encode(), timestamp, body)
    digest = hmac.digest(_secret(key, tenant_id), signed, hashlib.sha256)
    return {
        "webhook-id": str(delivery_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _secret(key: bytes, tenant_id: UUID) -> bytes:
    return hmac.digest(key, b"webhooks of tenant " + tenant_id.bytes, hashlib.sha256)
