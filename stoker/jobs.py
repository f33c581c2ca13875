"""What may happen to a job: every change of its state, and nowhere else.

Each function is one transaction (reaping and the like: one an app). It reads nothing for callers
(``stoker.job_queries``), rings no doorbell and publishes nothing: who calls it does, with what it returns. The API, the
control loop and the nodes call it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import DictRow
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, claiming, exits, lanes, sql
from stoker.database import Connection, is_unreachable, transaction
from stoker.each_app import each_app
from stoker.errors import Conflict, LeaseLost, NotFound, PayloadRemoved, StartTimeout
from stoker.events import EventKind
from stoker.exits import Exit
from stoker.ids import new_id
from stoker.job_values import (
    CancelResult,
    Claim,
    ClaimRequest,
    End,
    ErrorReport,
    Failed,
    Finished,
    Lease,
    Moved,
    NewJob,
    Outcome,
    Output,
    QueueKey,
    Renewal,
    Stopped,
    Submitted,
    Succeeded,
    Usage,
)
from stoker.retries import EXCUSED, Tried
from stoker.states import FINAL, TRANSITIONS, JobState, Trigger
from stoker.stored_json import as_possible

__all__ = [
    "CancelResult",
    "Claim",
    "ClaimRequest",
    "End",
    "ErrorReport",
    "Failed",
    "Finished",
    "Lease",
    "Moved",
    "NewJob",
    "Outcome",
    "Output",
    "QueueKey",
    "Renewal",
    "Stopped",
    "Submitted",
    "Succeeded",
    "Usage",
    "append_events",
    "cancel_found",
    "claim",
    "expire_unstarted",
    "finish",
    "finish_alike",
    "promote_due",
    "reap",
    "release",
    "release_former_boots",
    "renew",
    "request_cancel",
    "retry",
    "submit",
    "submit_alike",
]


async def submit(db: AsyncEngine, new: NewJob) -> Submitted:
    """Store a job with its first event, and wake its lane.

    Raises:
        IdempotencyConflict: the tenant used the key before, for another request.
        InvalidRequest: the input holds what Postgres cannot.
        QueueFull: as many jobs of the app wait as may.
    """
    row = new.row()
    # To wake the lane takes a statement of its own: it must see the lane as it is now that our job holds it.
    storing = "submit+room" if new.needs_room else "submit"
    steps: list[sql.Step] = [*lanes.entering(row, new), (storing, row), ("wake_lane", row)]
    if new.idempotency_key is not None:
        steps.append(("find_replay", row))
    answers = dict(zip((name for name, _ in steps), await sql.at_once(db, *steps), strict=True))
    if stored := answers[storing]:
        return Submitted.stored(stored[0], new.version.app)
    for room in answers.get("take_room", ()):
        if not room["has_room"]:
            raise lanes.refused_for(room, new)
    [first] = answers["find_replay"]  # only a known key stores nothing
    return Submitted.replayed(first, row["request_hash"])


async def submit_alike(
    db: AsyncEngine, alike: Sequence[tuple[NewJob, Mapping[str, Any]]], *, has_lane: bool = False
) -> list[Submitted]:
    """Store jobs of one lane, each with its row, without keys or a longest queue to heed: all of them or none.

    Raises:
        psycopg.errors.ForeignKeyViolation: ``has_lane`` said that the lane is there, and it is not.
    """
    rows = [row for _, row in alike]
    lane = {**rows[0], "priority": min(row["priority"] for row in rows), "job_id": None}
    entering = [] if has_lane else [("make_lane", lane)]
    answers = await sql.at_once(db, *entering, *(("submit", row) for row in rows), ("wake_lane", lane))
    stored = answers[len(entering) : -1]
    return [Submitted.stored(row, new.version.app) for [row], (new, _) in zip(stored, alike, strict=True)]


async def claim(db: AsyncEngine, request: ClaimRequest) -> Claim | None:
    """Take the best waiting job of the app's queues; None if there is none to take now."""
    if not request.queues:
        return None
    _, rows = await sql.at_once(db, claiming.lock(request), claiming.step(request))
    return claiming.taken(rows)


async def renew(
    db: AsyncEngine,
    *,
    node_id: str,
    boot_id: UUID,
    leases: Sequence[Lease],
    lease_s: float,
    progress: Mapping[UUID, dict[str, Any]],
) -> Renewal:
    """One heartbeat of a node for all its leases, with its jobs' progress. With no leases it says the node lives."""
    values = {
        "node_id": node_id,
        "boot_id": boot_id,
        "lease_s": lease_s,
        **_listed(leases),
        "progress_ids": list(progress),
        "progress": [as_possible(data) for data in progress.values()],
    }
    held = {Lease(row["job_id"], row["attempt"]): row for row in await sql.ask(db, "renew", values)}
    return Renewal(
        lost=frozenset(lease for lease in leases if lease not in held),
        cancelled=frozenset(lease for lease, row in held.items() if row["cancel_asked"]),
        unnamed=frozenset(lease for lease, row in held.items() if not row["is_asked"]),
    )


async def append_events(db: AsyncEngine, lease: Lease, events: Sequence[tuple[EventKind, dict[str, Any]]]) -> int:
    """Store events of a running attempt; the seq of the last.

    Raises:
        LeaseLost: the attempt does not hold the job any more.
    """
    values = {
        "job_id": lease.job_id,
        "attempt": lease.attempt,
        "count": len(events),
        "kinds": [str(kind) for kind, _ in events],
        "data": [as_possible(data) for _, data in events],
    }
    heads = await sql.ask(db, "append_events", values)
    if not heads:
        raise LeaseLost(f"attempt {lease.attempt} of job {lease.job_id} does not hold it any more")
    last_seq: int = heads[0]["last_seq"]
    return last_seq


async def finish(
    db: AsyncEngine, lease: Lease, outcome: Outcome, usage: Usage, *, then: ClaimRequest | None = None
) -> Finished:
    """End an attempt, and claim the next job of the same app in the same transaction if ``then`` asks so."""
    if isinstance(outcome, Failed):
        return await _finish_step_by_step(db, lease, outcome, usage, then)
    try:
        [finished] = await finish_alike(db, [End(lease, outcome, usage, then)])
    except psycopg.Error as error:
        if then is None or error.sqlstate is None or is_unreachable(error):
            raise
        # Refused as a whole, perhaps for the claim's sake, which must not cost the result.
        return await _finish_step_by_step(db, lease, outcome, usage, then)
    return finished


async def finish_alike(db: AsyncEngine, ends: Sequence[End]) -> list[Finished]:
    """End attempts of one app that have not failed, and claim what is to follow each: all of that or none."""
    steps: list[sql.Step] = [
        ("lock_app_of_job", {"job_id": ends[0].lease.job_id}),
        *([("lock_leases", {"job_ids": [end.lease.job_id for end in ends]})] if len(ends) > 1 else ()),
        ("leave_running", {"exits": as_possible([exits.ended(end) for end in ends])}),
        *(claiming.step(end.then, after=end.lease) for end in ends if end.then is not None),
    ]
    left, *answers = (await sql.at_once(db, *steps))[1 if len(ends) == 1 else 2 :]
    by_job, claimed = {row["job_id"]: row for row in left}, iter(answers)
    return [
        Finished.of(by_job.get(end.lease.job_id), claiming.taken(next(claimed)) if end.then is not None else None)
        for end in ends
    ]


async def request_cancel(db: AsyncEngine, job_id: UUID, tenant_id: UUID | None) -> CancelResult:
    """Cancel a job that waits at once; ask for it where it runs.

    Raises:
        NotFound: there is no such job, or it is another tenant's.
        Conflict: it is final.
    """
    async with transaction(db) as tx:
        await sql.run(tx, "lock_app_of_job", {"job_id": job_id})
        job = await sql.row(tx, "find_job", {"job_id": job_id, "tenant_id": tenant_id})
        if job is None:
            raise NotFound(f"there is no job {job_id}")
        state = JobState(job["state"])
        if state in FINAL:
            raise Conflict(f"job {job_id} is {state} already")
        if state is JobState.RUNNING:
            await sql.run(tx, "ask_cancel", {"job_ids": [job_id]})
            return CancelResult(state, job["node_id"], job["seq"])
        [left] = await _leave_waiting(tx, [job_id], Trigger.CANCEL, None)
    return CancelResult(left.state, None, left.seq)


async def cancel_found(db: AsyncEngine, find: str, values: Mapping[str, Any]) -> list[Moved]:
    """Cancel all that the statement ``find`` finds: what waits at once, what runs by asking."""

    async def cancel(tx: Connection, found: list[DictRow]) -> list[Moved]:
        job_ids = [row["job_id"] for row in found]
        left = await _leave_waiting(tx, job_ids, Trigger.CANCEL, None)
        asked = await sql.rows(tx, "ask_cancel", {"job_ids": job_ids})
        return left + [Moved.of(row) for row in asked]

    return await each_app(db, find, values, cancel)


async def release(db: AsyncEngine, leases: Mapping[Lease, Usage | None], reason: str) -> list[Moved]:
    """Give running jobs back unharmed (a node drains), with what they took: queued again, no retry used up."""

    def give_back(lease: Lease, held: DictRow) -> Exit:
        return exits.released(lease, tried=Tried.of(held), reason=reason, usage=leases[lease])

    return await _take_back(db, "find_leases", _listed(list(leases)), give_back)


async def release_former_boots(db: AsyncEngine, node_id: str, boot_id: UUID) -> list[Moved]:
    """Take back what other boots of this node held: they are dead."""
    return await _take_back(db, "find_former_boots", {"node_id": node_id, "boot_id": boot_id}, _lose)


async def reap(db: AsyncEngine, *, back_since: datetime | None = None, limit: int = 100) -> list[Moved]:
    """Take jobs back whose lease ran out: queued, failed at the cap, or cancelled if that was asked.

    ``back_since``: when nodes could reach the database again. A lease is spared for its length after that.
    """
    return await _take_back(db, "find_expired", {"limit": limit, "back_since": back_since}, _lose, only_expired=True)


async def expire_unstarted(db: AsyncEngine, *, limit: int = 500) -> list[Moved]:
    """Fail the jobs that were not started within their start timeout."""
    error = ErrorReport.of(StartTimeout("no node started the job within its start_timeout"))

    async def fail(tx: Connection, found: list[DictRow]) -> list[Moved]:
        late = await sql.rows(tx, "hold_unstarted", {"job_ids": [row["job_id"] for row in found]})
        return await _leave_waiting(tx, [row["job_id"] for row in late], Trigger.EXPIRE, error)

    return await each_app(db, "find_unstarted", {"limit": limit}, fail)


async def promote_due(db: AsyncEngine, *, limit: int = 500) -> list[str]:
    """Queue the scheduled jobs whose time has come; the apps to ring."""

    async def queue(tx: Connection, found: list[DictRow]) -> list[str]:
        ready = await sql.rows(tx, "promote", {"job_ids": [row["job_id"] for row in found]})
        await lanes.wake(tx, ready)
        return [found[0]["queue"]] if ready else []

    return await each_app(db, "find_due", {"limit": limit}, queue)


async def retry(
    db: AsyncEngine,
    job_id: UUID,
    tenant_id: UUID | None,
    *,
    key_id: str | None = None,
    best_priority: int = 0,
    idempotency_key: str | None = None,
    tenant_most_waiting: int | None = None,
) -> Submitted:
    """Submit a final job again, as a new one that names it: for the key ``key_id``, no better than it may ask for.

    Raises:
        NotFound: there is no such job, or it is another tenant's.
        Conflict: it is not final yet.
        IdempotencyConflict: the tenant used the key before, for another request.
        QueueFull, PayloadRemoved: as many jobs wait as may, or nothing is left to submit.
    """
    async with transaction(db) as tx:
        old = await sql.row(tx, "find_for_retry", {"job_id": job_id, "tenant_id": tenant_id})
    if old is None:
        raise NotFound(f"there is no job {job_id}")
    if (state := JobState(old.pop("state"))) not in FINAL:
        raise Conflict(f"job {job_id} is {state}: only a final job can be retried")
    if old.pop("is_removed"):
        raise PayloadRemoved(f"the input of job {job_id} was removed")
    version = await apps.version(db, old.pop("version_id"))
    again = old | {"tags": tuple(old["tags"]), "priority": max(old["priority"], best_priority), "key_id": key_id}
    again |= {"retried_from": job_id, "idempotency_key": idempotency_key, "tenant_most_waiting": tenant_most_waiting}
    return await submit(db, NewJob(version=version, **again))


# Below: statements and the plain values around them. ``tx`` is a transaction that holds the app's lock.


async def _finish_step_by_step(
    db: AsyncEngine, lease: Lease, outcome: Outcome, usage: Usage, then: ClaimRequest | None
) -> Finished:
    """The same where what is written depends on what is found, or where all at once was refused."""
    async with transaction(db) as tx:
        await sql.run(tx, "lock_app_of_job", {"job_id": lease.job_id})
        if not isinstance(outcome, Failed):
            leaving = exits.ended(End(lease, outcome, usage))
        else:
            held = await sql.row(tx, "hold_leases", _listed([lease]) | {"excused": EXCUSED, "only_expired": False})
            if held is None:
                return Finished(applied=False)
            chance = random.random()  # noqa: S311 (spreads load)
            leaving = exits.failed(lease, outcome, usage, tried=Tried.of(held), node_id=held["node_id"], chance=chance)
        left = await _leave_running(tx, [leaving])
        if not left:
            return Finished(applied=False)
        following = await claiming.claim_or_leave_it(tx, then) if then is not None else None
    return Finished(applied=True, state=left[0].state, seq=left[0].seq, next=following)


async def _leave_running(tx: Connection, leaving: Sequence[Exit]) -> list[Moved]:
    left = await sql.rows(tx, "leave_running", {"exits": as_possible(leaving)})
    await lanes.wake(tx, [row for row in left if row["state"] == JobState.QUEUED])
    attempts = {leave["job_id"]: leave["attempt"] for leave in leaving}
    return [Moved.of(row, attempts[str(row["job_id"])]) for row in left]


async def _leave_waiting(
    tx: Connection, job_ids: Sequence[UUID], trigger: Trigger, error: ErrorReport | None
) -> list[Moved]:
    values = {
        "job_ids": list(job_ids),
        "delivery_ids": [new_id() for _ in job_ids],
        "state": TRANSITIONS[JobState.QUEUED, trigger],
        "reason": "cancelled" if error is None else error.code,
        "error": None if error is None else as_possible(error.to_json()),
    }
    left = await sql.rows(tx, "leave_waiting", values)
    return [Moved.of(row) for row in left]


async def _take_back(
    db: AsyncEngine,
    find: str,
    values: Mapping[str, Any],
    leaving: Callable[[Lease, DictRow], Exit],
    *,
    only_expired: bool = False,
) -> list[Moved]:
    """Find leases without a lock, then end those that still stand, app by app."""

    async def end(tx: Connection, found: list[DictRow]) -> list[Moved]:
        leases = [Lease(row["job_id"], row["attempt"]) for row in found]
        held = await sql.rows(tx, "hold_leases", _listed(leases) | {"excused": EXCUSED, "only_expired": only_expired})
        if not held:
            return []
        return await _leave_running(tx, [leaving(Lease(row["job_id"], row["attempt"]), row) for row in held])

    return await each_app(db, find, values, end)


def _lose(lease: Lease, held: DictRow) -> Exit:
    return exits.lost(lease, tried=Tried.of(held), node_id=held["node_id"])


def _listed(leases: Sequence[Lease]) -> dict[str, Any]:
    return {"job_ids": [lease.job_id for lease in leases], "attempts": [lease.attempt for lease in leases]}
