"""Queues, for admins: what waits and runs, by app; pause and resume; limits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from sqlalchemy import text

from api.answers import AppLimits, Queues, answers
from api.auth import Admin
from api.bodies import AppLimitsBody, JsonRoute
from api.connections import Here
from stoker import app_limits
from stoker.database import reading
from stoker.errors import Forbidden, UnknownApp

router = APIRouter(prefix="/v1/queues", tags=["queues"], route_class=JsonRoute)

DEPTH = text("SELECT * FROM v_queue_depth")


@router.get("", responses=answers(200, Queues, Forbidden))
async def list_queues(_caller: Admin, here: Here) -> dict[str, Any]:
    """The rows of the view ``v_queue_depth``."""
    async with reading(here.db) as connection:
        rows = (await connection.execute(DEPTH)).mappings().all()
    return {"queues": [dict(row) for row in rows]}


@router.post("/{owner}/{alias}/pause", responses=answers(200, AppLimits, Forbidden, UnknownApp))
async def pause(owner: str, alias: str, caller: Admin, here: Here) -> dict[str, Any]:
    """Start none of the app's jobs from now on: what runs goes on, what waits stays, what comes is queued."""
    app = f"{owner}/{alias}"
    return {"app": app, **asdict(await app_limits.pause(here.db, app, caller))}


@router.post("/{owner}/{alias}/resume", responses=answers(200, AppLimits, Forbidden, UnknownApp))
async def resume(owner: str, alias: str, caller: Admin, here: Here) -> dict[str, Any]:
    """Start the app's jobs again."""
    app = f"{owner}/{alias}"
    limits = await app_limits.resume(here.db, app, caller)
    here.doorbell.ring(app)
    return {"app": app, **asdict(limits)}


@router.post("/{owner}/{alias}", responses=answers(200, AppLimits, Forbidden, UnknownApp))
async def set_limits(owner: str, alias: str, body: AppLimitsBody, caller: Admin, here: Here) -> dict[str, Any]:
    """Set how many of the app's jobs may run at once and how many may wait. Null: no limit."""
    app = f"{owner}/{alias}"
    limits = await app_limits.set_limits(here.db, app, body.model_dump(exclude_unset=True), caller)
    here.versions.forget()
    here.doorbell.ring(app)
    return {"app": app, **asdict(limits)}
