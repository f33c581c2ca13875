"""What the load stands on: an app, a key, and jobs of it, by the product's own functions."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, jobs
from stoker.apps import AppVersion
from stoker.jobs import NewJob
from stoker.keys import NewKey
from stoker.manifest import EndpointManifest, Manifest

APP, ENDPOINT, NODE = "bench/api", "/", "bench"
INPUT = {"prompt": "a red circle left of a blue square", "steps": 4, "seed": 17}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "additionalProperties": False,
    "properties": {
        "prompt": {"type": "string", "minLength": 1, "maxLength": 2000},
        "steps": {"type": "integer", "minimum": 1, "maximum": 100},
        "seed": {"type": "integer"},
    },
}


async def publish(db: AsyncEngine) -> AppVersion:
    """Publish the app, as its node does."""
    endpoint = EndpointManifest(ENDPOINT, "inference", SCHEMA, {}, False, 3600, None, None, 1, "")
    return await apps.publish(db, Manifest(APP, "", "", 0, (endpoint,)))


async def submit(db: AsyncEngine, key: NewKey, count: int) -> list[str]:
    """Store jobs of it; their ids."""
    version = await publish(db)
    new = NewJob(tenant_id=key.tenant_id, version=version, endpoint=ENDPOINT, input=INPUT)
    return [str((await jobs.submit(db, new)).job_id) for _ in range(count)]
