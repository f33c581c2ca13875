"""Reads of jobs, for the API. Nothing here changes a row."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    ScalarSelect,
    Table,
    bindparam,
    case,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stoker import families, sql
from stoker.compiled import Compiled
from stoker.database import reading
from stoker.errors import InvalidRequest, NotFound, OutputsRemoved
from stoker.events import Event, EventId, EventKind
from stoker.families import ALONE
from stoker.job_values import COUNTED, NewJob, Submitted
from stoker.job_views import AttemptView, JobSummary, JobView, attempt_of, output_of, shown
from stoker.states import JobState
from stoker.tables import (
    app_versions,
    apps,
    job_attempts,
    job_children,
    job_heads,
    job_outputs,
    jobs,
    nodes,
)
from stoker.tables.columns import LANE

CURSOR = re.compile("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.ASCII)


@dataclass(frozen=True)
class JobFilters:
    """What a list of jobs is narrowed to."""

    app: str | None = None
    state: JobState | None = None
    tag: str | None = None
    since: datetime | None = None
    parent: UUID | None = None


EVERY_JOB = JobFilters()


@dataclass(frozen=True)
class Page:
    """Newest first. ``next_cursor`` goes into the next call; None on the last page."""

    jobs: tuple[JobSummary, ...]
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


_SUMMARY = (
    select(
        *(column for column in jobs.c if column.name not in ("input", "result", "request_hash")),
        apps.c.name.label("app"),
        app_versions.c.hash.label("version"),
        job_heads.c.last_seq,
        job_heads.c.progress,
        select(func.count() > 0)
        .where(
            nodes.c.state == "ready",
            func.stoker_is_live(nodes.c.state, nodes.c.heartbeat_at, nodes.c.lease_s),
            app_versions.c.id == nodes.c.versions.any_(),
        )
        .scalar_subquery()
        .label("served"),
    )
    .join(app_versions, app_versions.c.id == jobs.c.version_id)
    .join(apps, apps.c.id == app_versions.c.app_id)
    .join(job_heads, job_heads.c.job_id == jobs.c.id)
)

# The jobs of its lane that come before a queued one, by the index that the claim reads.
_other = jobs.alias("other")
_BEFORE_IT = (
    select(literal(1))
    .where(
        *(_other.c[column] == jobs.c[column] for column in LANE),
        _other.c.state == "queued",
        tuple_(_other.c.priority, _other.c.id) < tuple_(jobs.c.priority, jobs.c.id),
    )
    .correlate(jobs)
    .limit(COUNTED)
    .subquery()
)
_POSITION = case(
    (jobs.c.state == "queued", select(func.count()).select_from(_BEFORE_IT).scalar_subquery()),
).label("queue_position")
_top = jobs.alias("top")


def _as_json(table: Table, order: Column[Any], *which: ColumnElement[bool]) -> ScalarSelect[Any]:
    rows = func.jsonb_agg(aggregate_order_by(func.to_jsonb(literal_column(table.name)), order))
    return select(rows).select_from(table).where(*which).correlate(jobs).scalar_subquery()


_VIEW = Compiled(
    _SUMMARY.add_columns(
        jobs.c.input,
        jobs.c.result,
        _POSITION,
        _as_json(job_attempts, job_attempts.c.attempt, job_attempts.c.job_id == jobs.c.id).label("attempt_rows"),
        _as_json(job_outputs, job_outputs.c.position, job_outputs.c.job_id == jobs.c.id).label("output_rows"),
        exists().where(job_children.c.parent_id == jobs.c.id).correlate(jobs).label("is_parent"),
    ).where(
        jobs.c.id == bindparam("job_id"),
        or_(bindparam("tenant_id", type_=jobs.c.tenant_id.type).is_(None), jobs.c.tenant_id == bindparam("tenant_id")),
    )
)


async def get(db: AsyncEngine, job_id: UUID, tenant_id: UUID | None) -> JobView:
    """One job; of any tenant if ``tenant_id`` is None. One statement, but for a job that has a family.

    Raises:
        NotFound: there is none with this id, or it is another tenant's.
    """
    found = await _VIEW.ask(db, job_id=job_id, tenant_id=tenant_id)
    if not found:
        raise NotFound(f"there is no job {job_id}")
    [row] = found
    family = ALONE
    if row["is_parent"] or row["parent_id"] is not None:
        async with reading(db) as tx:
            family = await families.of(tx, job_id, is_child=row["parent_id"] is not None)
    return JobView(
        **shown(row, map(attempt_of, row["attempt_rows"] or ())) | {"queue_position": row["queue_position"]},
        input=row["input"],
        result=row["result"],
        outputs=tuple(map(output_of, row["output_rows"] or ())),
        family=family,
    )


async def find_replay(db: AsyncEngine, tenant_id: UUID, idempotency_key: str, request_hash: bytes) -> Submitted | None:
    """The job that the tenant made with this key before; None if it made none.

    Raises:
        IdempotencyConflict: that was another request.
    """
    found = await sql.ask(db, "find_replay", {"tenant_id": tenant_id, "idempotency_key": idempotency_key})
    return Submitted.replayed(found[0], request_hash) if found else None


def just_submitted(new: NewJob, job: Submitted) -> JobView | None:
    """The view of a job that was made this moment, without reading it; None if it was there before.

    Pure. ``input`` is as it was sent; a reader gets it as Postgres keeps it, with names in another order.
    """
    if job.fresh is None:
        return None
    endpoint = new.version.endpoint(new.endpoint)
    return JobView(
        id=job.job_id,
        tenant_id=new.tenant_id,
        app=new.version.app,
        endpoint=new.endpoint,
        kind=endpoint.kind,
        version=new.version.hash,
        state=job.state,
        priority=new.priority,
        attempt=0,
        max_attempts=new.max_attempts or endpoint.max_attempts,
        attempts=(),
        error=None,
        progress=None,
        webhook_url=new.webhook_url,
        created_at=job.fresh.created_at,
        available_at=job.fresh.available_at,
        started_at=None,
        finished_at=None,
        cancel_requested_at=None,
        tags=new.tags,
        retried_from=new.retried_from,
        parent_id=new.parent_id,
        queue_position=job.fresh.queue_position,
        gpu_seconds=0.0,
        last_seq=1,
        served=job.fresh.served,
        store_io=new.version.manifest.store_io if new.store_io is None else new.store_io,
        no_retry=new.no_retry,
        outputs_expire_at=None,
        outputs_removed_at=None,
        payload_removed_at=None,
        input=new.input,
        result=None,
        outputs=(),
    )


async def list_jobs(
    db: AsyncEngine,
    tenant_id: UUID | None,
    filters: JobFilters = EVERY_JOB,
    cursor: str | None = None,
    limit: int = 50,
) -> Page:
    """A page of jobs, newest first.

    Raises:
        InvalidRequest: ``cursor`` was not given by an earlier page.
    """
    chosen = _SUMMARY.order_by(jobs.c.id.desc()).limit(limit + 1)
    if tenant_id is not None:
        chosen = chosen.where(jobs.c.tenant_id == tenant_id)
    if filters.app is not None:
        chosen = chosen.where(apps.c.name == filters.app)
    if filters.state is not None:
        chosen = chosen.where(jobs.c.state == filters.state)
    if filters.tag is not None:
        chosen = chosen.where(jobs.c.tags.contains([filters.tag]))
    if filters.since is not None:
        chosen = chosen.where(jobs.c.created_at >= filters.since)
    if filters.parent is not None:
        chosen = chosen.where(jobs.c.parent_id == filters.parent)
    if cursor is not None:
        if CURSOR.fullmatch(cursor) is None:
            raise InvalidRequest(f"{cursor[:80]!r} is not a cursor", hint="Send back next_cursor as it came.")
        chosen = chosen.where(jobs.c.id < UUID(cursor))
    async with reading(db) as tx:
        found = (await tx.execute(chosen)).mappings().all()
        page = found[:limit]
        attempts = await _attempts(tx, [row["id"] for row in page])
    cursor = str(page[-1]["id"]) if len(found) > limit else None
    return Page(tuple(JobSummary(**shown(dict(row), attempts[row["id"]])) for row in page), cursor)


async def events_after(db: AsyncEngine, job_id: UUID, seq: int, limit: int = 500) -> list[Event]:
    """Event rows past ``seq``, in order."""
    return (await events_of(db, {job_id: seq}, limit))[job_id]


async def events_of(db: AsyncEngine, after: Mapping[UUID, int], limit: int) -> Mapping[UUID, list[Event]]:
    """Of each job the event rows past its seq, in order, at most ``limit`` of them."""
    values = {"job_ids": list(after), "seqs": list(after.values()), "limit": limit}
    found: dict[UUID, list[Event]] = {job_id: [] for job_id in after}
    for row in await sql.ask(db, "find_events", values):
        event_id = EventId(row["seq"], row["attempt"] or 0)
        found[row["job_id"]].append(Event(event_id, EventKind(row["kind"]), row["data"], row["created_at"]))
    return found


async def output_by_token(db: AsyncEngine, token: str) -> OutputRow:
    """The output that a stable link names.

    Raises:
        NotFound: no output has this token.
        OutputsRemoved: its time has ended, or that of the job at the top of its tree.
    """
    expire_at = func.coalesce(jobs.c.outputs_expire_at, _top.c.outputs_expire_at)
    is_gone = jobs.c.outputs_removed_at.is_not(None) | func.coalesce(expire_at <= func.stoker_now(), False)
    chosen = (
        select(job_outputs, jobs.c.tenant_id, is_gone.label("is_gone"))
        .join(jobs, jobs.c.id == job_outputs.c.job_id)
        .outerjoin(job_children, job_children.c.child_id == jobs.c.id)
        .outerjoin(_top, _top.c.id == job_children.c.root_id)
        .where(job_outputs.c.token == token.replace("\0", ""))
    )
    async with reading(db) as tx:
        row = (await tx.execute(chosen)).one_or_none()
    if row is None:
        raise NotFound("there is no output with this link", hint="It may have been deleted with its job.")
    if row.is_gone:
        raise OutputsRemoved("this output is not kept any more")
    return OutputRow(
        id=row.id,
        job_id=row.job_id,
        tenant_id=row.tenant_id,
        name=row.name,
        key=row.key,
        content_type=row.content_type,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
    )


async def _attempts(tx: AsyncConnection, job_ids: list[UUID]) -> Mapping[UUID, tuple[AttemptView, ...]]:
    of_jobs = select(job_attempts).where(job_attempts.c.job_id.in_(job_ids)).order_by(job_attempts.c.attempt)
    found: dict[UUID, tuple[AttemptView, ...]] = defaultdict(tuple)
    for row in (await tx.execute(of_jobs)).mappings():
        found[row["job_id"]] += (attempt_of(dict(row)),)
    return found
