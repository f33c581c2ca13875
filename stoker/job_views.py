"""A job as readers see it, as values. ``stoker.job_queries`` makes them of rows; nothing here reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from stoker.families import ALONE, Family
from stoker.states import JobState

# Those columns of a row that a summary shows as they are.
_AS_THEY_ARE = (
    *("id", "tenant_id", "app", "endpoint", "kind", "version", "priority", "attempt", "max_attempts"),
    *("error", "progress", "webhook_url", "created_at", "available_at", "started_at", "finished_at"),
    *("cancel_requested_at", "retried_from", "parent_id", "last_seq", "served"),
    *("store_io", "no_retry", "outputs_expire_at", "outputs_removed_at", "payload_removed_at"),
)


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
    peak_memory_bytes: int | None
    log_file: dict[str, Any] | None
    """The part of its log that is in no row; the link is relative."""


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


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    """A job as a list shows it: without what may be large. ``served``: a live node serves its version now."""

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
    error: dict[str, str] | None
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
    store_io: bool
    no_retry: bool
    outputs_expire_at: datetime | None
    outputs_removed_at: datetime | None
    payload_removed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class JobView(JobSummary):
    """All that a caller may know of a job; a summary's ``queue_position`` is None, a removed ``input``, too."""

    input: dict[str, Any] | None
    result: dict[str, Any] | None
    outputs: tuple[OutputView, ...]
    family: Family = ALONE


def shown(row: Mapping[str, Any], attempts: Iterable[AttemptView]) -> dict[str, Any]:
    """The fields of a summary."""
    tried = tuple(attempts)
    return {name: row[name] for name in _AS_THEY_ARE} | {
        "state": JobState(row["state"]),
        "attempts": tried,
        "tags": tuple(row["tags"]),
        "queue_position": None,
        "gpu_seconds": sum(attempt.gpu_seconds for attempt in tried),
    }


def attempt_of(row: Mapping[str, Any]) -> AttemptView:
    """An attempt, by its row or by that as JSON, in which times are texts."""
    return AttemptView(
        attempt=row["attempt"],
        node_id=row["node_id"],
        outcome=row["outcome"],
        error=row["error"],
        claimed_at=_time(row["claimed_at"]),
        ended_at=_time(row["ended_at"]) if row["ended_at"] else None,
        gpu_seconds=float(row["gpu_seconds"]),
        warm=row["warm"],
        phases=row["phases"],
        peak_memory_bytes=row["peak_memory_bytes"],
        log_file=row["log_file"],
    )


def output_of(row: Mapping[str, Any]) -> OutputView:
    """An output, by its row as JSON."""
    return OutputView(
        id=UUID(row["id"]),
        attempt=row["attempt"],
        name=row["name"],
        pointer=row["pointer"],
        content_type=row["content_type"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        link=f"/outputs/{row['token']}/{quote(row['name'])}",
        metadata=row["metadata"],
    )


def _time(moment: datetime | str) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
