"""Tenants, for admins: their share of the GPUs, their cap, how often they may ask and how much may wait."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path

from api.answers import Tenant, Tenants, answers
from api.auth import Admin
from api.bodies import JsonRoute, TenantBody
from api.connections import Here
from stoker import tenants
from stoker.errors import Forbidden, NotFound
from stoker.tenants import TenantRow

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=JsonRoute)


@router.get("", responses=answers(200, Tenants, Forbidden))
async def list_tenants(_caller: Admin, here: Here) -> dict[str, Any]:
    """All tenants."""
    return {"tenants": [_tenant_json(row) for row in await tenants.list_tenants(here.db)]}


@router.post("/{name}", responses=answers(200, Tenant, Forbidden, NotFound))
async def set_limits(
    name: Annotated[str, Path(pattern=r"^[^\x00]{1,200}$")], body: TenantBody, caller: Admin, here: Here
) -> dict[str, Any]:
    """Set a tenant's weight, cap and limits, from the next claim on. What is left out stays; null is no limit."""
    given = body.model_dump(include={"max_requests_per_s", "max_waiting"}, exclude_unset=True)
    changed = await tenants.set_limits(
        here.db,
        name,
        weight=body.weight,
        max_running=body.max_running,
        uncapped="max_running" in body.model_fields_set and body.max_running is None,
        admission=given,
        by=caller,
    )
    here.callers.forget()
    return _tenant_json(changed)


def _tenant_json(row: TenantRow) -> dict[str, Any]:
    return {"name": row.name, **asdict(row.limits)}
