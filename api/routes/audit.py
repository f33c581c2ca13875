"""The audit log, for admins: acts of the own tenant's keys, and acts on what is the tenant's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.answers import Acts, answers
from api.auth import Admin
from api.connections import Here
from stoker import audit
from stoker.errors import Forbidden

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", responses=answers(200, Acts, Forbidden))
async def list_acts(
    caller: Admin,
    here: Here,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """What admins did, newest first. The next page is what was ``before`` the last one's id."""
    found = await audit.list_acts(here.db, caller.tenant_id, before=before, limit=limit)
    return {"acts": [asdict(act) for act in found]}
