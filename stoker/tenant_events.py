"""The events of all of a tenant's jobs, in an order in which none can be missed.

Rows are numbered when their transaction begins to write and seen when it ends, and transactions end in any order: who
remembers the newest number that it saw misses what an older transaction commits after it. So a row carries the mark of
its transaction, and only rows below the horizon are read: under it no transaction is open. Within a job marks never
fall, so its events come in the order of their seq. It stores nothing; ``stoker.event_clock`` tends the clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.database import reading
from stoker.errors import InvalidRequest
from stoker.events import EventKind
from stoker.states import JobState

SCAN = 500
"""So many rows are looked at for a page, however few of them pass its filters."""
MAX_JOBS = 100
WRITTEN = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})\.([0-9a-f]{32})\.([0-9]{1,9})")
"""A cursor as text."""

# The newest row that no open transaction can put another before, or that was deleted. A place goes no further, though
# there is nothing up to the horizon: numbers that no row has may be given again when the server has crashed.
_SETTLED = """
    coalesce(greatest((SELECT e.mark FROM job_events e WHERE e.tenant_id = :tenant_id AND e.mark < stoker_horizon()
                       ORDER BY e.mark DESC LIMIT 1),
                      CASE WHEN t.events_pruned < stoker_horizon() THEN t.events_pruned END), 0)
"""
_HERE = "SELECT c.era, {settled} AS settled FROM event_clock c, tenants t WHERE t.id = :tenant_id"

# A result may be large, and the job has it. The rows of a few jobs are found by their key, those of a tenant by its
# marks; a transaction has few rows, so sorting those of one mark costs nothing. {source} is where rows come from.
_PAGE = """
WITH here AS MATERIALIZED (
    SELECT c.era, stoker_horizon() AS horizon, t.events_pruned,
           coalesce((SELECT e.mark FROM job_events e WHERE e.tenant_id = :tenant_id ORDER BY e.mark DESC LIMIT 1)
                    >= stoker_horizon(), false) AS is_held,
           {settled} AS settled
    FROM event_clock c, tenants t WHERE t.id = :tenant_id
), read AS MATERIALIZED (
    SELECT e.mark, e.job_id, e.seq, e.attempt, e.kind, e.created_at,
           CASE WHEN e.kind = 'state' THEN e.data - 'result' ELSE e.data END AS data
    FROM {source}
    ORDER BY e.mark, e.job_id, e.seq LIMIT :scan
)
SELECT h.*, r.*, a.name AS app, j.parent_id,
       (CAST(:app AS text) IS NULL OR a.name = :app)
       AND (CAST(:parent_id AS uuid) IS NULL OR j.parent_id = :parent_id)
       AND (CAST(:root_id AS uuid) IS NULL OR r.job_id = :root_id
            OR EXISTS (SELECT FROM job_children c WHERE c.child_id = r.job_id AND c.root_id = :root_id))
       AND (CAST(:kinds AS text[]) IS NULL OR r.kind = ANY (:kinds))
       AND (CAST(:states AS text[]) IS NULL OR (r.kind = 'state' AND r.data ->> 'state' = ANY (:states))) AS is_wanted
FROM here h
LEFT JOIN read r ON true
LEFT JOIN jobs j ON j.id = r.job_id
LEFT JOIN app_versions v ON v.id = j.version_id
LEFT JOIN apps a ON a.id = v.app_id
ORDER BY r.mark, r.job_id, r.seq
"""
_PAST = """
    e.mark >= :mark AND e.mark < (SELECT horizon FROM here)
    AND (e.mark, e.job_id, e.seq) > (:mark, CAST(:job_id AS uuid), :seq)
"""
_OF_ALL = "job_events e WHERE e.tenant_id = :tenant_id AND {past}"
_OF_JOBS = "job_events e WHERE e.tenant_id = :tenant_id AND {past} AND e.job_id = ANY (CAST(:job_ids AS uuid[]))"
# Job by job, by the key again, for a tenant may have a thousand times as many rows. Only jobs with something newer are
# looked at, and of each no more rows than a page holds. Whose they are is asked of the jobs: the index of a tenant's
# rows, which a plan may take where it knows of few new ones, would be gone through once for each job.
_OF_FAMILY = """
    ({family}) f JOIN job_heads h ON h.job_id = f.id AND h.mark >= :mark
    CROSS JOIN LATERAL (SELECT * FROM job_events e WHERE e.job_id = f.id AND {past} ORDER BY e.seq LIMIT :scan) e
"""
_CHILDREN = "SELECT id FROM jobs WHERE parent_id = CAST(:parent_id AS uuid) AND tenant_id = :tenant_id"
_TREE = """
    SELECT o.id FROM jobs r
    CROSS JOIN LATERAL (SELECT r.id UNION ALL SELECT c.child_id FROM job_children c WHERE c.root_id = r.id) o
    WHERE r.id = CAST(:root_id AS uuid) AND r.tenant_id = :tenant_id
"""


def _page_of(rows: str, family: str = "") -> TextClause:
    return text(_PAGE.format(settled=_SETTLED, source=rows.format(past=_PAST, family=family)))


HERE = text(_HERE.format(settled=_SETTLED))
OF_TENANT, OF_JOBS = _page_of(_OF_ALL), _page_of(_OF_JOBS)
OF_CHILDREN, OF_TREE = _page_of(_OF_FAMILY, _CHILDREN), _page_of(_OF_FAMILY, _TREE)


class Cursor(NamedTuple):
    """The place of a row among its tenant's. ``era``: which life of the database gave it."""

    era: int
    mark: int
    job: int = 0
    seq: int = 0

    @classmethod
    def parse(cls, written: str) -> Self:
        """Read what ``str`` wrote.

        Raises:
            InvalidRequest: it is something else.
        """
        if (match := WRITTEN.fullmatch(written)) is not None:
            era, mark, job, seq = match.groups()
            return cls(int(era), int(mark), int(job, 16), int(seq))
        raise InvalidRequest(
            f"{written[:80]!r} is no place in the events of many jobs",
            hint="Send back an id as it came; 0 asks for all that is kept.",
        )

    def __str__(self) -> str:
        return f"{self.era}.{self.mark}.{self.job:032x}.{self.seq}"


START = Cursor(0, 0)
"""Before all that is kept."""


@dataclass(frozen=True)
class EventFilters:
    """What the events are narrowed to."""

    app: str | None = None
    kinds: tuple[EventKind, ...] = ()
    states: tuple[JobState, ...] = ()
    parent_id: UUID | None = None
    root_id: UUID | None = None
    job_ids: tuple[UUID, ...] = ()


@dataclass(frozen=True)
class TenantEvent:
    """A row, with its place. What stands in it is as its job's own stream has it, without a result."""

    cursor: Cursor
    job_id: UUID
    app: str
    parent_id: UUID | None
    seq: int
    attempt: int | None
    kind: EventKind
    data: dict[str, Any]
    created_at: datetime


class Gap(NamedTuple):
    """Why rows may be missing: another ``era``, rows deleted up to ``pruned``, numbers set back to ``horizon``."""

    era: int
    pruned: int
    horizon: int | None


@dataclass(frozen=True)
class EventPage:
    """``cursor``: what was looked at, past what filters left out. ``has_more``: look on at once. ``is_held``: a
    transaction that is still open holds rows back. ``gap``: rows after the cursor that was asked with may be gone.
    """

    events: tuple[TenantEvent, ...]
    cursor: Cursor
    has_more: bool
    is_held: bool
    gap: Gap | None

    @property
    def has_gap(self) -> bool:
        """Whether rows between the cursor that was asked with and the first of these may be gone."""
        return self.gap is not None


async def here(db: AsyncEngine, tenant_id: UUID) -> Cursor:
    """The place of now: what is committed from here on comes after it."""
    async with reading(db) as tx:
        row = (await tx.execute(HERE, {"tenant_id": tenant_id})).one()
    return Cursor(row.era, row.settled + 1)


async def read(
    db: AsyncEngine, tenant_id: UUID, after: Cursor, filters: EventFilters, *, scan: int = SCAN
) -> EventPage:
    """The rows past ``after`` that no open transaction can still put others before."""
    values = {
        "tenant_id": tenant_id,
        "mark": after.mark,
        "job_id": UUID(int=after.job),
        "seq": after.seq,
        "scan": scan,
        "app": filters.app,
        "parent_id": filters.parent_id,
        "root_id": filters.root_id,
        "kinds": [str(kind) for kind in filters.kinds] or None,
        "states": [str(state) for state in filters.states] or None,
    }
    async with reading(db) as tx:
        rows = (await tx.execute(_statement(filters), values | {"job_ids": list(filters.job_ids)})).all()
    return _page(rows, after, scan)


def _statement(filters: EventFilters) -> TextClause:
    """The one that finds the fewest rows. What else the filters say it checks of each."""
    if filters.job_ids:
        return OF_JOBS
    if filters.parent_id is not None:
        return OF_CHILDREN
    return OF_TREE if filters.root_id is not None else OF_TENANT


def _page(rows: Sequence[Any], after: Cursor, scan: int) -> EventPage:
    first, found = rows[0], [row for row in rows if row.mark is not None]
    places = [Cursor(first.era, row.mark, row.job_id.int, row.seq) for row in found]
    # What lies beyond the horizon was numbered in a life of the database that is lost.
    is_lost = after.mark > first.horizon
    is_gone = after != START and (after.era != first.era or after.mark < first.events_pruned or is_lost)
    settled = Cursor(first.era, first.settled + 1)
    has_more = len(found) == scan
    return EventPage(
        events=tuple(
            TenantEvent(
                cursor=place,
                job_id=row.job_id,
                app=row.app,
                parent_id=row.parent_id,
                seq=row.seq,
                attempt=row.attempt,
                kind=EventKind(row.kind),
                data=row.data,
                created_at=row.created_at,
            )
            for row, place in zip(found, places, strict=True)
            if row.is_wanted
        ),
        cursor=places[-1] if has_more else settled if is_lost else max(settled, after._replace(era=first.era)),
        has_more=has_more,
        is_held=first.is_held,
        gap=Gap(first.era, first.events_pruned, first.horizon if is_lost else None) if is_gone else None,
    )
