"""Who calls, and what they may do. Keys are on from the first day; ``stoker.keys`` holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader

from api.connections import Here
from stoker import keys
from stoker.errors import Forbidden, Unauthenticated
from stoker.keys import Caller

# What a scope allows besides itself.
IMPLIED = {"run": {"run", "read"}, "read": {"read"}, "admin": {"admin", "run", "read"}}
MAX_KEY_CHARS = 200

_header = APIKeyHeader(
    name="Authorization", auto_error=False, scheme_name="key", description="Key <id>:<secret>, or Bearer <id>:<secret>"
)


async def caller_of(here: Here, header: Annotated[str | None, Security(_header)] = None) -> Caller:
    """Whose key the header holds. What it may do is not looked at.

    Raises:
        Unauthenticated, RateLimited
    """
    scheme, _, presented = (header or "").partition(" ")
    presented = presented.strip()
    if not presented or scheme.lower() not in ("key", "bearer"):
        raise Unauthenticated("the request carries no key" if not header else "the Authorization header has no key")
    if len(presented) > MAX_KEY_CHARS or not presented.isascii() or not presented.isprintable():
        raise Unauthenticated("that is not a key")
    digest = hashlib.sha256(presented.encode()).digest()  # no secret is kept
    caller = await here.callers.get(digest, lambda: keys.verify(here.db, presented))
    await here.rates.spend(caller)
    return caller


def allowed(caller: Caller, scope: str) -> Caller:
    """The caller, who may do this.

    Raises:
        Forbidden: their key may not.
    """
    if scope not in set().union(*(IMPLIED[held] for held in caller.scopes if held in IMPLIED)):
        raise Forbidden(f"this key does not have the scope {scope!r}")
    return caller


def _require(scope: str) -> Callable[[Caller], Awaitable[Caller]]:
    async def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        return allowed(caller, scope)

    return check


Reader = Annotated[Caller, Depends(_require("read"))]
Submitter = Annotated[Caller, Depends(_require("run"))]
Admin = Annotated[Caller, Depends(_require("admin"))]
