"""Tenants, for admins: their share of the GPUs and their cap."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from api.auth import Admin
from api.bodies import JsonRoute, TenantBody
from api.connections import Here
from stoker import tenants
from stoker.tenants import TenantRow

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=JsonRoute)


@router.get("")
async def list_tenants(_caller: Admin, here: Here) -> dict[str, Any]:
    """All tenants."""
    return {"tenants": [_tenant_json(row) for row in await tenants.list_tenants(here.db)]}


@router.post("/{name}")
async def set_limits(
    name: Annotated[str, Path(pattern=r"^[^\x00]{1,200}$")], body: TenantBody, caller: Admin, here: Here
) -> dict[str, Any]:
    """Set a tenant's weight or cap, from the next claim on. What is left out stays; a cap of null is none."""
    changed = await tenants.set_limits(
        here.db,
        name,
        weight=body.weight,
        max_running=body.max_running,
        uncapped="max_running" in body.model_fields_set and body.max_running is None,
        by=caller,
    )
    return _tenant_json(changed)


def _tenant_json(row: TenantRow) -> dict[str, Any]:
    return {"name": row.name, "weight": row.limits.weight, "max_running": row.limits.max_running}
