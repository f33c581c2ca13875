"""Children: jobs that a running job starts and waits for.

A child is named by its parent and what was asked, so that a parent's second attempt finds the first's children. Only
the attempt that holds its job may start one. What may happen to a child as a job is ``stoker.jobs``'s; nothing here
publishes or rings. Nodes submit and wait; the API, the control loop and the nodes cancel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import jobs, lanes, sql
from stoker.apps import AppVersion
from stoker.database import Connection, transaction
from stoker.errors import CallRefused, JobCancelled, LeaseLost
from stoker.events import EventKind
from stoker.job_values import Lease, Moved, NewJob
from stoker.states import JobState
from stoker.stored_json import as_possible
from stoker.tables.columns import NO_CAP

MAX_DEPTH = 4
"""How many calls deep a job may be below the one that nobody's app started."""
AT_ONCE = 200
"""So many children are cancelled while somebody waits."""


@dataclass(frozen=True, kw_only=True)
class NewChild:
    """What an endpoint asked of another app, found good. ``key`` stands for the input in the child's name."""

    version: AppVersion
    endpoint: str
    input: dict[str, Any]
    key: str | None = None

    @property
    def name(self) -> str:
        """The same call of another attempt has the same one."""
        if self.key is not None:
            return f"{self.version.app}{self.endpoint}#{self.key}"
        text = json.dumps(self.input, sort_keys=True, separators=(",", ":"))
        return f"{self.version.app}{self.endpoint}@{hashlib.sha256(text.encode(errors='replace')).hexdigest()}"


@dataclass(frozen=True)
class Child:
    """A child that was started or found (``created`` False). ``parent_seq`` is the event row that says so, if any."""

    job_id: UUID
    state: JobState
    created: bool
    parent_seq: int | None


async def submit(db: AsyncEngine, parent: Lease, new: NewChild, known: Collection[UUID] = ()) -> Child:
    """Start the child of this name, or find it: one that waits, runs or has succeeded is not started again.

    Of those that are ``known`` the parent's log says no more: an app may ask for the same one without an end.

    One that failed or was cancelled is the answer too, as long as no attempt of the parent has heard of that. Then it
    is followed by another of the next generation: whoever calls again after a failure wants another try.

    Raises:
        LeaseLost: the attempt does not hold its job any more.
        JobCancelled: its job is to be cancelled.
        CallRefused: it holds GPUs, or is too deep.
        QueueFull: as many jobs of the app wait as may.
        InvalidRequest: the input holds what Postgres cannot.
    """
    named = {"parent_id": parent.job_id, "attempt": parent.attempt, "name": new.name}
    async with transaction(db) as tx:
        holding, finding = await sql.run(tx, "hold_parent", named), await sql.run(tx, "find_child", named)
        held = may_call(parent, await holding.fetchone())
        newest = await finding.fetchone()
        if newest is None or newest["failure_was_heard"]:
            started = await _start(tx, parent, named, held, newest, new)
            if started is not None:
                return started
            # Another call of this attempt was first: we waited for its transaction, and see what it has made.
            newest = await sql.row(tx, "find_child", named)
        if newest is None:
            raise LeaseLost(f"attempt {parent.attempt} of job {parent.job_id} does not hold it any more")
        state = JobState(newest["state"])
        seq = None
        if newest["child_id"] not in known:
            seq = await _tell(tx, parent, "found again", new.version.app, newest["child_id"], state)
    return Child(newest["child_id"], state, created=False, parent_seq=seq)


def may_call(parent: Lease, held: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """``held``, where a parent like that may start a child. Pure."""
    if held is None:
        raise LeaseLost(f"attempt {parent.attempt} of job {parent.job_id} does not hold it any more")
    if held["cancel_asked"]:
        raise JobCancelled("the job is to be cancelled: it starts no other")
    refuse_gpus(uses_gpus=held["uses_gpus"])
    if held["depth"] >= MAX_DEPTH:
        raise CallRefused(
            f"this job is {MAX_DEPTH} calls below the first one already",
            hint="Does an app call itself without an end? Otherwise call from a job higher up.",
        )
    return held


def refuse_gpus(*, uses_gpus: bool) -> None:
    """Let no job call that holds GPUs. Pure."""
    if uses_gpus:
        raise CallRefused(
            "an endpoint that holds GPUs cannot call another app",
            hint="It would hold them while it waits. Call from an endpoint with num_gpus=0.",
        )


async def set_waiting(db: AsyncEngine, parent: Lease, *, waits: bool) -> bool:
    """Say whether a running job only waits for its children: then it counts in no cap.

    One that goes on counts again at once, which may be one more than the cap allows. True: there is a cap, so that
    another job of the app may be able to start now.

    Raises:
        LeaseLost: the attempt does not hold its job any more.
    """
    values = {"job_id": parent.job_id, "attempt": parent.attempt, "counts": not waits, "no_cap": NO_CAP}
    async with transaction(db) as tx:
        held = await sql.row(tx, "set_counts", values)
    if held is None:
        raise LeaseLost(f"attempt {parent.attempt} of job {parent.job_id} does not hold it any more")
    return waits and bool(held["is_capped"])


async def hear_ended(db: AsyncEngine, parent: Lease, child_id: UUID, app: str, state: JobState) -> int:
    """The attempt has heard of the child's end: an event of the parent's says so, to the next call too; the row's seq.

    Raises:
        LeaseLost: the attempt does not hold its job any more.
    """
    async with transaction(db) as tx:
        return await _tell(tx, parent, str(state), app, child_id, state, has_ended=True)


async def final_ones(db: AsyncEngine, child_ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of the children that have ended."""
    async with transaction(db) as tx:
        found = await sql.rows(tx, "find_final", {"job_ids": list(child_ids)})
    return frozenset(row["id"] for row in found)


async def cancel_below(db: AsyncEngine, job_id: UUID, *, limit: int = AT_ONCE) -> list[Moved]:
    """Cancel what a job has started, and they in turn: what waits at once, what runs by asking.

    Who waits for this may be a caller of the API: what is beyond ``limit`` is left to ``cancel_orphans``.
    """
    return await jobs.cancel_found(db, "find_open_below", {"job_id": job_id, "limit": limit})


async def cancel_orphans(db: AsyncEngine, *, limit: int = 500) -> list[Moved]:
    """Cancel the children whose parent is final or to be cancelled: none outlives it, whoever forgot it."""
    return await jobs.cancel_found(db, "find_orphans", {"limit": limit})


async def _start(
    tx: Connection,
    parent: Lease,
    named: Mapping[str, Any],
    held: Mapping[str, Any],
    newest: DictRow | None,
    new: NewChild,
) -> Child | None:
    """Name the child and store it; None where its name is taken or the lease lost."""
    job = NewJob(
        tenant_id=held["tenant_id"],
        version=new.version,
        endpoint=new.endpoint,
        input=new.input,
        priority=held["priority"],
        key_id=held["key_id"],
        parent_id=parent.job_id,
        depth=held["depth"] + 1,
        store_io=None if held["store_io"] else False,
        no_retry=held["no_retry"],
    )
    row = job.row()
    place = {
        "child_id": row["job_id"],
        "root_id": held["root_id"],
        "depth": job.depth,
        "generation": 1 if newest is None else newest["generation"] + 1,
    }
    if await sql.row(tx, "name_child", {**named, **place}) is None:
        return None
    await lanes.enter(tx, row, job)
    stored = await sql.run(tx, "submit", row)
    await lanes.wake(tx, [row])
    seq = await _tell(tx, parent, "started", new.version.app, row["job_id"], JobState.QUEUED)
    submitted = await stored.fetchone()
    assert submitted is not None  # noqa: S101 (only an idempotency key, which it has not, stores nothing)
    return Child(row["job_id"], JobState(submitted["state"]), created=True, parent_seq=seq)


async def _tell(
    tx: Connection, parent: Lease, verb: str, app: str, child_id: UUID, state: JobState, *, has_ended: bool = False
) -> int:
    """A line of the parent's log, with the child for programs. It is fenced by the parent's lease."""
    child = {"id": str(child_id), "app": app, "state": str(state), "has_ended": has_ended}
    said = {"message": f"child {child_id} of {app} {verb}", "attempt": parent.attempt, "child": child}
    values = {
        "job_id": parent.job_id,
        "attempt": parent.attempt,
        "count": 1,
        "kinds": [str(EventKind.LOG)],
        "data": [as_possible(said)],
    }
    head = await sql.row(tx, "append_events", values)
    if head is None:
        raise LeaseLost(f"attempt {parent.attempt} of job {parent.job_id} does not hold it any more")
    seq: int = head["last_seq"]
    return seq
