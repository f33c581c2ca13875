"""All routes of fal's wire, as one router for the application."""

from __future__ import annotations

from fastapi import APIRouter

from api.fal import cdn, queue, rest, run

router = APIRouter()
for part in (queue, run, rest, cdn):
    router.include_router(part.router)
