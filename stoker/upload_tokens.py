"""Upload tokens: for a while, the right to upload files as the tenant of a key, without the key itself.

A token is ``<key id>.<end>.<mac>``, and its mac is made with what is stored of the key: nothing else needs to be kept,
every API process can check it, and it is void as soon as the key is. It gives no other right.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import sql
from stoker.errors import Unauthenticated
from stoker.keys import Caller

VALID_S = 3600
FORM = re.compile(r"([A-Za-z0-9_]{1,100})\.([0-9]{1,12})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class UploadToken:
    """``expires_at`` is Unix time, in seconds."""

    token: str
    expires_at: int


async def issue(db: AsyncEngine, caller: Caller) -> UploadToken:
    """A token for the caller's tenant."""
    expires_at = int(time.time()) + VALID_S
    [key] = await sql.ask(db, "find_key", {"key_id": caller.key_id})
    mac = _mac(bytes(key["secret_sha256"]), caller.key_id, expires_at)
    return UploadToken(f"{caller.key_id}.{expires_at}.{mac}", expires_at)


async def verify(db: AsyncEngine, presented: str) -> UUID:
    """The tenant that ``presented`` may upload for.

    Raises:
        Unauthenticated: it is no token, or its time or its key's has ended.
    """
    found = FORM.fullmatch(presented)
    if found is not None and int(found[2]) > time.time():
        keys = await sql.ask(db, "find_key", {"key_id": found[1]})
        if keys and keys[0]["is_valid"]:
            mac = _mac(bytes(keys[0]["secret_sha256"]), found[1], int(found[2]))
            if hmac.compare_digest(mac, found[3]):
                tenant_id: UUID = keys[0]["tenant_id"]
                return tenant_id
    raise Unauthenticated("the upload token is not valid", hint="Ask for a new one with a key.")


def _mac(secret_sha256: bytes, key_id: str, expires_at: int) -> str:
    return hmac.new(secret_sha256, f"upload:{key_id}:{expires_at}".encode(), hashlib.sha256).hexdigest()
