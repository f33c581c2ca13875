"""All routes of fal's wire, as one router for the application."""

from __future__ import annotations

from fastapi import APIRouter

from api.fal import cdn, payloads, queue, rest, run, tokens
from api.routes import webhooks

router = APIRouter()
for part in (queue, run, rest, tokens, cdn, payloads):
    router.include_router(part.router)
# Where a verifier finds the keys at fal, on what stands for that host here.
router.add_api_route("/rest/.well-known/jwks.json", webhooks.public_keys, methods=["GET"], include_in_schema=False)
