"""Key tokens: for a while, a part of what a key may, without the key itself: to upload files, or to run some apps.

A token is ``<key id>.<end>.<what>.<mac>``, and its mac is made with what is stored of the key: nothing else needs to be
kept, every API process can check it, and it is void as soon as the key is. ``api.fal`` gives and takes them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import keys, sql
from stoker.errors import Unauthenticated
from stoker.keys import Caller

UPLOAD = "upload"
"""What an upload token is for. A token to run apps names them: ``run~alias~owner/alias``."""
VALID_S = 3600
"""How long one for uploads is."""
FORM = re.compile(r"([A-Za-z0-9_]{1,100})\.([0-9]{1,12})\.([A-Za-z0-9_.~/-]{1,4000})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class KeyToken:
    """``expires_at`` is Unix time, in seconds."""

    token: str
    expires_at: int


async def issue_for_uploads(db: AsyncEngine, caller: Caller) -> KeyToken:
    """A token for files of the caller's tenant."""
    return await _issue(db, caller, UPLOAD, VALID_S)


async def issue_for_apps(db: AsyncEngine, caller: Caller, apps: list[str], valid_s: int) -> KeyToken:
    """A token to run these: an ``owner/alias`` is one app, an alias alone all of that name."""
    return await _issue(db, caller, "~".join(["run", *apps]), valid_s)


async def verify_for_uploads(db: AsyncEngine, presented: str) -> Caller:
    """Who may upload with ``presented``.

    Raises:
        Unauthenticated: it is no token for that, or its time or its key's has ended.
    """
    caller, what = await _verify(db, presented)
    if what != UPLOAD:
        raise _invalid()
    return caller


async def verify_for_app(db: AsyncEngine, presented: str, app: str) -> Caller:
    """Who may run ``app`` with ``presented``, and follow what it runs; nothing else.

    Raises:
        Unauthenticated: it is no token for that, or its time or its key's has ended.
    """
    caller, what = await _verify(db, presented)
    right, *apps = what.split("~")
    if right != "run" or not {app, app.partition("/")[2]} & set(apps):
        raise _invalid()
    return replace(caller, scopes=frozenset({"run"}))


async def _issue(db: AsyncEngine, caller: Caller, what: str, valid_s: int) -> KeyToken:
    expires_at = int(time.time()) + valid_s
    [key] = await sql.ask(db, "find_key", {"key_id": caller.key_id})
    mac = _mac(bytes(key["secret_sha256"]), f"{caller.key_id}.{expires_at}.{what}")
    return KeyToken(f"{caller.key_id}.{expires_at}.{what}.{mac}", expires_at)


async def _verify(db: AsyncEngine, presented: str) -> tuple[Caller, str]:
    found = FORM.fullmatch(presented)
    if found is not None and int(found[2]) > time.time():
        rows = await sql.ask(db, "find_key", {"key_id": found[1]})
        if rows and rows[0]["is_valid"]:
            mac = _mac(bytes(rows[0]["secret_sha256"]), presented.rpartition(".")[0])
            if hmac.compare_digest(mac, found[4]):
                return keys.caller_of(rows[0]), found[3]
    raise _invalid()


def _invalid() -> Unauthenticated:
    return Unauthenticated("the token is not valid for this", hint="Ask for a new one with a key.")


def _mac(secret_sha256: bytes, text: str) -> str:
    return hmac.new(secret_sha256, b"token:" + text.encode(), hashlib.sha256).hexdigest()
