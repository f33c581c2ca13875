"""A job that has called another app, without a node that runs either."""

from __future__ import annotations

from uuid import UUID, uuid4

import httpx2
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, children, jobs
from stoker.apps import AppVersion
from stoker.children import NewChild
from stoker.jobs import Claim, ClaimRequest, QueueKey
from tests.support.job_world import endpoint, manifest


async def parent_and_child(db: AsyncEngine, http: httpx2.AsyncClient, called: AppVersion) -> tuple[Claim, UUID]:
    """A parent that runs, of the tenant that ``http`` speaks for, and its child, a job of ``called`` that waits."""
    version = await apps.publish(db, manifest(f"acme/parent-{uuid4().hex[:8]}", endpoint(uses_gpus=False), num_gpus=0))
    answer = await http.post("/v1/jobs", json={"app": version.app, "input": {}})
    assert answer.status_code == 202, answer.text
    request = ClaimRequest("parents", uuid4(), (QueueKey(version.id, uses_gpus=False),), "runner", 30.0)
    parent = await jobs.claim(db, request)
    assert parent is not None
    asked = NewChild(version=called, endpoint="/", input={"prompt": "a cat"}, key="first")
    child = await children.submit(db, parent.lease, asked)
    return parent, child.job_id
