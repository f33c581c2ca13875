"""Queues, for admins: what waits and runs, by app."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import text

from api.auth import Admin
from api.connections import Here

router = APIRouter(prefix="/v1/queues", tags=["queues"])

DEPTH = text("SELECT * FROM v_queue_depth")


@router.get("")
async def list_queues(_caller: Admin, here: Here) -> dict[str, Any]:
    """The rows of the view ``v_queue_depth``."""
    async with here.db.connect() as connection:
        rows = (await connection.execute(DEPTH)).mappings().all()
    return {"queues": [dict(row) for row in rows]}
