"""Whether this process lives, whether it can serve, and its metrics. No key is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text

from api.answers import Health, Readiness, answers
from api.connections import Connections, Here
from stoker.database import is_unreachable, reading
from stoker.errors import StorageUnavailable

CHECK_S = 3.0

router = APIRouter(tags=["health"])


@router.get("/healthz", responses=answers(200, Health))
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={**answers(200, Readiness), **answers(503, Readiness)})
async def readyz(here: Here, response: Response) -> dict[str, Any]:
    """Postgres answers. Redis and the object store are reported, but jobs are accepted without them."""
    postgres, redis, storage = await asyncio.gather(
        _postgres_answers(here), here.bus.is_reachable(), _storage_answers(here)
    )
    if not postgres:
        response.status_code = 503
        response.headers["retry-after"] = "2"
    parts = {"postgres": postgres, "redis": redis, "storage": storage}
    return {"ready": postgres, "parts": {name: "ok" if ok else "unreachable" for name, ok in parts.items()}}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(here: Here) -> Response:
    """Prometheus text."""
    return Response(await here.metrics.render(here.db), media_type=CONTENT_TYPE_LATEST)


async def _postgres_answers(here: Connections) -> bool:
    try:
        async with asyncio.timeout(CHECK_S), reading(here.db) as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:
        if not isinstance(error, TimeoutError) and not is_unreachable(error):
            raise
        return False
    return True


async def _storage_answers(here: Connections) -> bool:
    try:
        async with asyncio.timeout(CHECK_S):
            await here.storage.check()
    except (StorageUnavailable, TimeoutError):
        return False
    return True
