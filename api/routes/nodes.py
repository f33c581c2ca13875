"""Nodes and their runners, for admins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from api.auth import Admin
from api.connections import Here
from stoker import nodes

router = APIRouter(prefix="/v1/nodes", tags=["nodes"])


@router.get("")
async def list_nodes(_caller: Admin, here: Here) -> dict[str, Any]:
    """Every node that ever registered."""
    return {"nodes": [asdict(row) for row in await nodes.list_nodes(here.db)]}
