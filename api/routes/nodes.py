"""Nodes and their runners, for admins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path

from api.answers import Node, Nodes, answers
from api.auth import Admin
from api.connections import Here
from stoker import nodes
from stoker.errors import Forbidden, NotFound

router = APIRouter(prefix="/v1/nodes", tags=["nodes"])


@router.get("", responses=answers(200, Nodes, Forbidden))
async def list_nodes(_caller: Admin, here: Here) -> dict[str, Any]:
    """Every node that ever registered."""
    return {"nodes": [asdict(row) for row in await nodes.list_nodes(here.db)]}


@router.post("/{node_id}/drain", status_code=202, responses=answers(202, Node, Forbidden, NotFound))
async def drain(
    node_id: Annotated[str, Path(pattern=r"^[^\x00]{1,200}$")], caller: Admin, here: Here
) -> dict[str, str]:
    """Have a node take no more jobs, finish or give back what it has, and end: as SIGTERM does, within some seconds."""
    await nodes.request_drain(here.db, node_id, caller)
    return {"node_id": node_id}
