"""What webhooks are verified with: the public keys, for everybody, and a tenant's secrets, for its admins."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from api.answers import Jwks, NewSecret, Secrets, answers, refused
from api.auth import Admin
from api.bodies import JsonRoute, NewSecretBody
from api.connections import Here
from stoker import signing_keys
from stoker.errors import Conflict, Forbidden, NotFound

KEEP_S = 3600
"""How long a receiver may keep the public keys without asking again; a new one signs a day after it is shown."""

router = APIRouter(tags=["webhooks"], route_class=JsonRoute)


@router.get("/.well-known/jwks.json", responses=answers(200, Jwks))
async def public_keys(here: Here, response: Response) -> dict[str, Any]:
    """The public keys of webhooks' ed25519 signatures, as a JSON Web Key Set (RFC 7517, RFC 8037)."""
    response.headers["cache-control"] = f"public, max-age={KEEP_S}"
    found = await signing_keys.public_keys(here.db)
    return {"keys": [_jwk(key_id, key) for key_id, key in found.items()]}


@router.post("/v1/webhooks/secrets", status_code=201, responses=answers(201, NewSecret, Forbidden, Conflict))
async def create_secret(body: NewSecretBody, caller: Admin, here: Here) -> dict[str, Any]:
    """Make a secret for the caller's tenant. It is in this answer and in no other.

    If there is one already, both sign for a day, the receiver's time to change; with ``at_once`` the new one alone.
    """
    made = await signing_keys.rotate_secret(here.db, caller.tenant_id, at_once=body.at_once, by=caller)
    return {"id": made.id, "secret": made.secret}


@router.get("/v1/webhooks/secrets", responses=answers(200, Secrets, Forbidden))
async def list_secrets(caller: Admin, here: Here) -> dict[str, Any]:
    """The tenant's secrets, without what is secret."""
    found = await signing_keys.list_keys(here.db, caller.tenant_id)
    return {
        "secrets": [
            {"id": key.id, "created_at": key.created_at.isoformat(), "retired_at": _time(key.retired_at)}
            for key in found
        ]
    }


@router.delete("/v1/webhooks/secrets/{secret_id}", status_code=204, responses=refused(Forbidden, NotFound, Conflict))
async def retire_secret(
    secret_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_]{1,64}$")], caller: Admin, here: Here
) -> None:
    """End a secret now: nothing is signed with it any more."""
    await signing_keys.retire(here.db, secret_id, caller.tenant_id, by=caller)


def _jwk(key_id: str, key: bytes) -> dict[str, str]:
    written = base64.urlsafe_b64encode(key).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key_id, "x": written}


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
