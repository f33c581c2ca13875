"""What the protocol promises, in plain Python over rows: who is next, what becomes of a job, what may never change.

Written from the documents, not from the statements that it judges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from stoker.states import FINAL, TRANSITIONS

Row = dict[str, Any]
Seen = dict[str, list[Row]]
"""All rows of a job's tables at one moment, by table."""

LANE = ("version_id", "uses_gpus", "tenant_id")
FINAL_STATES = {str(state) for state in FINAL}
MOVES = {(str(origin), str(target)) for (origin, _), target in TRANSITIONS.items()}
OF_A_JOB = ("job_heads", "job_attempts", "job_events", "job_outputs", "usage_records", "webhook_deliveries")
GPUS, GRAIN_S = 2, 10.0
EXCUSED = {"crashed_beside", "internal_error", "storage_unavailable", "unavailable"}


@dataclass(frozen=True)
class Error:
    """What an attempt fails with, as far as it matters to what comes next."""

    code: str
    crash: bool = False
    retryable: bool = False


LOST = Error("node_lost", crash=True, retryable=True)


@dataclass(frozen=True)
class After:
    """What becomes of a job. ``pause_s`` is the longest; half of it is the shortest."""

    state: str
    failures: int = 0
    crashes: int = 0
    pause_s: float = 0.0


def seconds(moment: str | None) -> float:
    """A time of a row; one that is not set never comes."""
    return float("inf") if moment is None else datetime.fromisoformat(moment).timestamp()


def lane_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[column] for column in LANE)


def by_id(rows: list[Row]) -> dict[str, Row]:
    return {row["id"]: row for row in rows}


def queued(seen: Seen, lane: Row) -> list[Row]:
    """A lane's waiting jobs, first first."""
    waiting = [job for job in seen["jobs"] if lane_of(job) == lane_of(lane) and job["state"] == "queued"]
    return sorted(waiting, key=lambda job: (job["priority"], job["id"]))


def may_start(job: Row, node_id: str, now: float) -> bool:
    """A job that crashed keeps off that node for a while, one past its start timeout is never started."""
    kept_off = job["avoid_node"] == node_id and seconds(job["avoid_until"]) > now
    return not kept_off and (job["attempt"] > 0 or seconds(job["start_deadline"]) > now)


def next_jobs(seen: Seen, queues: Collection[tuple[str, bool]], node_id: str, now: float) -> set[str]:
    """Which job a claim has to return: one, unless two lanes of a tenant are as good as each other."""
    firsts: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for lane in seen["queue_lanes"]:
        app = by_id(seen["apps"])[lane["app_id"]]
        in_app = sum(other["running"] for other in seen["queue_lanes"] if other["app_id"] == app["id"])
        full = lane["running"] >= lane["max_running"] or in_app >= (app["max_running"] or 1_000_000)
        if (lane["version_id"], lane["uses_gpus"]) not in queues or app["paused"] or lane["paused"] or full:
            continue
        startable = [job for job in queued(seen, lane) if may_start(job, node_id, now)]
        if startable and lane["has_ready"]:
            firsts[lane["prio"], lane["vtime"], lane["tenant_id"]].add(startable[0]["id"])
    return firsts[min(firsts)] if firsts else set()


def after_error(job: Row, excused: int, error: Error) -> After:
    """What an attempt that failed leaves, by the rules of docs/job-lifecycle.md and docs/errors.md."""
    cancelled = job["cancel_requested_at"] is not None
    failures, crashes = job["failures"], job["crashes"]
    if error.code in EXCUSED and cancelled:
        return After("cancelled")
    if error.code in EXCUSED and excused < (1 if error.code == "internal_error" else 5):
        if error.crash:
            return After("queued", failures, crashes)
        return After("scheduled", failures, crashes, 5.0 * 2**excused)
    if error.crash:
        if cancelled:
            return After("cancelled")
        return After("queued" if crashes < 1 else "failed", failures, crashes + 1)
    if not error.retryable or failures + 1 >= job["max_attempts"]:
        return After("failed", failures + 1, crashes)
    if cancelled:
        return After("cancelled")
    return After("scheduled", failures + 1, crashes, 2.0**failures)


def excused_so_far(seen: Seen, job_id: str) -> int:
    tries = [row for row in seen["job_attempts"] if row["job_id"] == job_id and row["error"]]
    return sum(row["error"]["code"] in EXCUSED for row in tries)


def changes(before: Seen, now: Seen) -> list[tuple[str, Row]]:
    """The rows that are there now and were not so before, and those that are gone."""
    return [
        (table, row)
        for table in before
        for these, others in ((now[table], before[table]), (before[table], now[table]))
        for row in these
        if row not in others
    ]


def wrong_moves(before: Seen, now: Seen) -> list[str]:
    """What changed between two moments and never may."""
    wrong = []
    for job_id, was in by_id(before["jobs"]).items():
        is_now = by_id(now["jobs"])[job_id]
        if was["state"] in FINAL_STATES:
            if all_of(before, job_id) != all_of(now, job_id):
                wrong.append(f"{job_id} was {was['state']} and changed")
            continue
        if not is_reachable(was, is_now):
            wrong.append(f"{job_id} went from {was['state']} to {is_now['state']}")
        if not was["attempt"] <= is_now["attempt"] <= was["attempt"] + 1:
            wrong.append(f"{job_id} went from attempt {was['attempt']} to {is_now['attempt']}")
    return wrong


def is_reachable(was: Row, is_now: Row) -> bool:
    """In one move, or in two where the attempt's end and the next claim are one transaction."""
    move = (was["state"], is_now["state"])
    again = was["state"] == is_now["state"] == "running" and is_now["attempt"] > was["attempt"]
    stayed = was["state"] == is_now["state"] and was["attempt"] == is_now["attempt"]
    return move in MOVES or stayed or again


def all_of(seen: Seen, job_id: str) -> Mapping[str, list[Row]]:
    """Every row that a job has."""
    rows = {table: [row for row in seen[table] if row["job_id"] == job_id] for table in OF_A_JOB}
    return rows | {"jobs": [row for row in seen["jobs"] if row["id"] == job_id]}


def hints_that_hide_a_job(seen: Seen) -> list[Row]:
    """Lanes that seem to have less to do than they have: a claim would pass over a job."""
    return [
        lane
        for lane in seen["queue_lanes"]
        if (waiting := queued(seen, lane)) and not (lane["has_ready"] and lane["prio"] <= waiting[0]["priority"])
    ]


def untidy_lanes(seen: Seen) -> list[Row]:
    """Lanes that are not as they have to be right after a tick."""
    held = [lane_of(lease) for lease in seen["job_leases"] if lease["counts"]]
    return [
        lane
        for lane in seen["queue_lanes"]
        if lane["has_ready"] != bool(waiting := queued(seen, lane))
        or (waiting and lane["prio"] != waiting[0]["priority"])
        or lane["running"] != held.count(lane_of(lane))
    ]


def due_for_running(seen: Seen, taken: Mapping[str, float]) -> dict[str, float]:
    """What running jobs are to be charged, of what they have ``taken`` so far: for ten seconds more, or not yet."""
    due = {}
    for lease in seen["job_leases"]:
        more = taken[lease["job_id"]] - lease["charged"]
        if more > GRAIN_S * (GPUS if lease["uses_gpus"] else 1):
            due[lease["job_id"]] = more
    return due


def charged_more(before: Seen, now: Seen) -> dict[str, float]:
    """What running jobs were charged between two moments. Their lanes' accounts must say the same."""
    old = {lease["job_id"]: lease["charged"] for lease in before["job_leases"]}
    more = {
        lease["job_id"]: lease["charged"] - old[lease["job_id"]]
        for lease in now["job_leases"]
        if lease["charged"] != old[lease["job_id"]]
    }
    for lane, was in zip(now["queue_lanes"], before["queue_lanes"], strict=True):
        jobs = [lease["job_id"] for lease in now["job_leases"] if lane_of(lease) == lane_of(lane)]
        assert (lane["vtime"] - was["vtime"]) * lane["weight"] == pytest.approx(sum(more.get(job, 0.0) for job in jobs))
    return more
