"""Reads of jobs, for the API. Nothing here changes a row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.events import Event
from stoker.states import JobState


@dataclass(frozen=True)
class AttemptView:
    """One try. ``outcome`` is None while it runs, else succeeded, failed, cancelled, lease_lost or released."""

    attempt: int
    node_id: str
    outcome: str | None
    error: dict[str, str] | None
    claimed_at: datetime
    ended_at: datetime | None
    gpu_seconds: float
    warm: bool | None
    phases: dict[str, float]


@dataclass(frozen=True)
class OutputView:
    """An output as callers see it. ``link`` is ``/outputs/{token}/{name}``, relative."""

    id: UUID
    attempt: int
    name: str
    pointer: str
    content_type: str
    size_bytes: int
    sha256: str
    link: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class JobView:
    """All that a caller may know of a job. ``served``: a live node serves its version now."""

    id: UUID
    tenant_id: UUID
    app: str
    endpoint: str
    kind: str
    version: str
    state: JobState
    priority: int
    attempt: int
    max_attempts: int
    attempts: tuple[AttemptView, ...]
    input: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, str] | None
    outputs: tuple[OutputView, ...]
    progress: dict[str, Any] | None
    webhook_url: str | None
    created_at: datetime
    available_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    tags: tuple[str, ...]
    retried_from: UUID | None
    parent_id: UUID | None
    queue_position: int | None
    gpu_seconds: float
    last_seq: int
    served: bool


@dataclass(frozen=True)
class JobFilters:
    """What a list of jobs is narrowed to."""

    app: str | None = None
    state: JobState | None = None
    tag: str | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class Page:
    """Newest first. ``next_cursor`` goes into the next call; None on the last page."""

    jobs: tuple[JobView, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class OutputRow:
    """What the stable link of an output leads to."""

    id: UUID
    job_id: UUID
    tenant_id: UUID
    name: str
    key: str
    content_type: str
    size_bytes: int
    sha256: str


async def get(db: AsyncEngine, job_id: UUID, tenant_id: UUID | None) -> JobView:
    """One job; of any tenant if ``tenant_id`` is None.

    Raises:
        NotFound: there is none with this id, or it is another tenant's.
    """
    raise NotImplementedError


async def list_jobs(
    db: AsyncEngine,
    tenant_id: UUID | None,
    filters: JobFilters = JobFilters(),
    cursor: str | None = None,
    limit: int = 50,
) -> Page:
    """A page of jobs, newest first.

    Raises:
        InvalidRequest: ``cursor`` was not given by an earlier page.
    """
    raise NotImplementedError


async def events_after(db: AsyncEngine, job_id: UUID, seq: int, limit: int = 500) -> list[Event]:
    """Event rows past ``seq``, in order."""
    raise NotImplementedError


async def output_by_token(db: AsyncEngine, token: str) -> OutputRow:
    """The output that a stable link names.

    Raises:
        NotFound: no output has this token.
    """
    raise NotImplementedError
