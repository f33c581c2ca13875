"""API keys of the caller's own tenant. Other tenants' keys are made with ``stoker keys create`` on DATABASE_URL."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from api.answers import Keys, NewKey, answers, refused
from api.auth import Admin
from api.bodies import JsonRoute, NewKeyBody
from api.connections import Here
from stoker import keys
from stoker.errors import Forbidden, NotFound
from stoker.keys import KeyRow

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)


@router.post("", status_code=201, responses=answers(201, NewKey, Forbidden))
async def create(body: NewKeyBody, caller: Admin, here: Here) -> dict[str, Any]:
    """Make a key that may do no more than the caller's. Its secret is in this answer and nowhere else."""
    best = caller.best_priority if body.best_priority is None else body.best_priority
    if best < caller.best_priority:
        raise Forbidden(
            f"this key may not make one whose best priority is {best}",
            hint=f"Its own best priority is {caller.best_priority}; 0 is first, 9 last.",
        )
    made = await keys.create(
        here.db,
        tenant=caller.tenant_name,
        scopes=frozenset(body.scopes),
        name=body.name,
        expires_at=body.expires_at,
        best_priority=best,
        by=caller,
    )
    return {"id": made.id, "key": made.key, "name": body.name, "scopes": sorted(body.scopes)}


@router.get("", responses=answers(200, Keys, Forbidden))
async def list_keys(caller: Admin, here: Here) -> dict[str, Any]:
    """The tenant's keys, without their secrets."""
    return {"keys": [_key_json(row) for row in await keys.list_keys(here.db, caller.tenant_id)]}


@router.delete("/{key_id}", status_code=204, responses=refused(Forbidden, NotFound))
async def revoke(key_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_]{1,64}$")], caller: Admin, here: Here) -> None:
    """End a key for ever."""
    await keys.revoke(here.db, key_id, caller.tenant_id, by=caller)
    here.callers.forget()


def _key_json(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "scopes": sorted(row.scopes),
        "best_priority": row.best_priority,
        "created_at": row.created_at.isoformat(),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
        "revoked_at": row.revoked_at.isoformat() if row.revoked_at else None,
    }
