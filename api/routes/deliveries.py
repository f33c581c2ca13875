"""Webhooks as their tenant sees them: what was sent to whom and what came back, and the wish to have it sent again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

from fastapi import APIRouter

from api.answers import Deliveries, answers
from api.auth import Reader, Submitter
from api.bodies import JsonRoute
from api.connections import Here
from stoker import deliveries, log
from stoker.deliveries import DeliveryView
from stoker.errors import Conflict, Forbidden, NotFound

router = APIRouter(prefix="/v1", tags=["webhooks"], route_class=JsonRoute)


@router.get("/jobs/{job_id}/deliveries", responses=answers(200, Deliveries, NotFound))
async def list_deliveries(job_id: UUID, caller: Reader, here: Here) -> dict[str, Any]:
    """What a job's webhook was sent: each try with the receiver's status and the beginning of its answer."""
    found = await deliveries.of_job(here.db, job_id, caller.tenant_id)
    return {"deliveries": [_delivery_json(delivery) for delivery in found]}


@router.post(
    "/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=answers(202, DeliveryView, Forbidden, NotFound, Conflict),
)
async def redeliver(delivery_id: UUID, caller: Submitter, here: Here) -> dict[str, Any]:
    """Send a delivery again, also one that has arrived: with the same id, and as often as a new one if need be."""
    asked = await deliveries.redeliver(here.db, delivery_id, caller.tenant_id)
    log.note(job_id=str(asked.job_id))
    return _delivery_json(asked)


def _delivery_json(delivery: DeliveryView) -> dict[str, Any]:
    return asdict(delivery)
