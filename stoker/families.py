"""Families: what a job has started, and all of that together, for readers.

Nothing here changes a row (``stoker.children`` does). ``stoker.job_queries`` adds it to what it says of one job.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from stoker.states import JobState
from stoker.tables import app_versions, apps, job_children, jobs

SHOWN = 100
"""So many children of a job are listed, the newest; a list of jobs narrowed to the parent has them all."""

_CHILDREN = (
    select(
        job_children.c.child_id,
        apps.c.name.label("app"),
        jobs.c.endpoint,
        jobs.c.state,
        job_children.c.name,
        job_children.c.generation,
    )
    .join(jobs, jobs.c.id == job_children.c.child_id)
    .join(app_versions, app_versions.c.id == jobs.c.version_id)
    .join(apps, apps.c.id == app_versions.c.app_id)
    .order_by(job_children.c.child_id.desc())
    .limit(SHOWN)
)
_BELOW = text("""
WITH RECURSIVE below AS (
    SELECT child_id FROM job_children WHERE parent_id = :job_id
    UNION ALL
    SELECT c.child_id FROM below b JOIN job_children c ON c.parent_id = b.child_id
)
SELECT count(DISTINCT b.child_id) AS jobs, coalesce(sum(t.gpu_seconds), 0) AS gpu_seconds
FROM below b LEFT JOIN job_attempts t ON t.job_id = b.child_id
""")


@dataclass(frozen=True)
class ChildView:
    """A child under its parent. ``generation`` counts the tries of what failed under one ``name``."""

    id: UUID
    app: str
    endpoint: str
    state: JobState
    name: str
    generation: int


@dataclass(frozen=True)
class Family:
    """``below`` counts all that the job has started, and they in turn; ``root_id`` is whose tree it is part of."""

    root_id: UUID | None = None
    children: tuple[ChildView, ...] = ()
    below: int = 0
    gpu_seconds_below: float = 0.0


ALONE = Family()


async def of(tx: AsyncConnection, job_id: UUID, *, is_child: bool) -> Family:
    """The family of one job."""
    root_id = None
    if is_child:
        root_id = (
            await tx.execute(select(job_children.c.root_id).where(job_children.c.child_id == job_id))
        ).scalar_one_or_none()
    found = (await tx.execute(_CHILDREN.where(job_children.c.parent_id == job_id))).all()
    if not found:
        return Family(root_id)
    below = (await tx.execute(_BELOW, {"job_id": job_id})).one()
    children = tuple(
        ChildView(row.child_id, row.app, row.endpoint, JobState(row.state), row.name, row.generation)
        for row in reversed(found)
    )
    return Family(root_id, children, below.jobs, below.gpu_seconds)
