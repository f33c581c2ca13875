"""The checker finds what is wrong: each rule has histories that break it, made from one that breaks none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.checker import RULES, broken, check, table
from tests.chaos.history import Answer, Delivery, History, Line, Row, Stored, Stream

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PARENT, CHILD, GONE = "parent", "child", "gone"
LANE = {"version_id": "v", "uses_gpus": False, "tenant_id": "t"}


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def job(id_: str, state: str, attempt: int, **changes: Any) -> Row:
    row = {
        "id": id_, "state": state, "attempt": attempt, "result": 1 if state == "succeeded" else None,
        "error": None, "webhook_url": None, "tags": [f"op-{id_}"], "parent_id": None,
        "created_at": at(0), "finished_at": at(9),
    }  # fmt: skip
    return row | changes


def attempt(job_id: str, number: int, node: str, outcome: str | None, begin: float, end: float | None) -> Row:
    return {
        "job_id": job_id, "attempt": number, "node_id": node, "outcome": outcome, "claimed_at": at(begin),
        "ended_at": None if end is None else at(end), "gpu_seconds": float(number),
    }  # fmt: skip


def event(job_id: str, seq: int, attempt: int | None, kind: str, state: str | None, reason: str | None) -> Row:
    return {"job_id": job_id, "seq": seq, "attempt": attempt, "kind": kind, "state": state, "reason": reason}


def good() -> History:
    """A parent that was lost once and then succeeded, with a webhook and an output; a child; a cancelled job."""
    return History(
        answers=[
            Answer("op-parent", "k", None, wants_webhook=True),
            Answer("op-parent", "k", PARENT, wants_webhook=True),
            Answer("op-gone", None, GONE),
        ],
        streams=[Stream(PARENT, ("1.0.0", "2.1.0", "2.1.1", "3.1.0", "4.2.0", "5.2.0", "6.2.0"), "succeeded")],
        deliveries=[Delivery("d1", PARENT, "succeeded"), Delivery("d1", PARENT, "succeeded")],
        lines=[
            Line("node-1", 1, "job_claimed", PARENT, 1),
            Line("control", 1, "job_reaped", PARENT, 1, "queued"),
            Line("node-1", 1, "outputs_discarded", PARENT, 1),
            Line("node-2", 1, "job_claimed", PARENT, 2),
            Line("node-2", 1, "job_ended", PARENT, 2, "succeeded"),
        ],
        objects=[Stored("t/parent/2/0-w.txt", 8)],
        rows={
            "jobs": [
                job(PARENT, "succeeded", 2, webhook_url="http://receiver"),
                job(CHILD, "succeeded", 1, parent_id=PARENT, tags=[], finished_at=at(8)),
                job(GONE, "cancelled", 0),
            ],
            "job_attempts": [
                attempt(PARENT, 1, "node-1", "lease_lost", 1, 2),
                attempt(PARENT, 2, "node-2", "succeeded", 2, 9),
                attempt(CHILD, 1, "node-2", "succeeded", 3, 8),
            ],
            "job_events": [
                event(PARENT, 1, None, "state", "queued", "submitted"),
                event(PARENT, 2, 1, "state", "running", "claimed"),
                event(PARENT, 3, 1, "state", "queued", "lease_lost"),
                event(PARENT, 4, 2, "state", "running", "claimed"),
                event(PARENT, 5, 2, "log", None, None),
                event(PARENT, 6, 2, "state", "succeeded", "succeeded"),
                event(CHILD, 1, None, "state", "queued", "submitted"),
                event(CHILD, 2, 1, "state", "running", "claimed"),
                event(CHILD, 3, 1, "state", "succeeded", "succeeded"),
                event(GONE, 1, None, "state", "queued", "submitted"),
                event(GONE, 2, None, "state", "cancelled", "cancelled"),
            ],
            "job_children": [{"parent_id": PARENT, "child_id": CHILD, "name": "c", "generation": 1}],
            "job_heads": [
                {"job_id": PARENT, "last_seq": 6}, {"job_id": CHILD, "last_seq": 3}, {"job_id": GONE, "last_seq": 2}
            ],
            "job_outputs": [{"job_id": PARENT, "attempt": 2, "key": "t/parent/2/0-w.txt", "size_bytes": 8}],
            "webhook_deliveries": [{"id": "d1", "job_id": PARENT, "state": "delivered", "attempts": 2}],
            "usage_records": [
                {"job_id": PARENT, "attempt": 1, "gpu_seconds": 1.0},
                {"job_id": PARENT, "attempt": 2, "gpu_seconds": 2.0},
                {"job_id": CHILD, "attempt": 1, "gpu_seconds": 1.0},
            ],
            "queue_lanes": [LANE | {"running": 0}],
        },
    )  # fmt: skip


Break = Callable[[History], History]


def rows(table_: str, change: Callable[[list[dict[str, Any]]], None]) -> Break:
    """A history with other rows in one table."""

    def apply(history: History) -> History:
        changed = [dict(row) for row in history.of(table_)]
        change(changed)
        return replace(history, rows={**history.rows, table_: changed})

    return apply


def put(table_: str, number: int, **values: Any) -> Break:
    return rows(table_, lambda found: found[number].update(values))


def drop(table_: str, number: int) -> Break:
    return rows(table_, lambda found: found.__delitem__(number))


def add(table_: str, **row: Any) -> Break:
    return rows(table_, lambda found: found.append(row))


def more(part: str, *values: Any) -> Break:
    return lambda history: replace(history, **{part: [*getattr(history, part), *values]})


CASES: dict[str, list[Break]] = {
    "every acknowledged POST is one job, and a key makes no second": [
        more("answers", Answer("op-lost", "l", "nowhere")),
        add("jobs", **job("twin", "cancelled", 0, tags=["op-parent"])),
        rows("jobs", lambda found: found.extend(job(f"gone-{n}", "cancelled", 0, tags=["op-gone"]) for n in (1, 2))),
        add("jobs", **job("uncalled", "cancelled", 0)),
    ],
    "every job ended, in one of the final states": [
        put("jobs", 2, state="queued", finished_at=None),
        put("jobs", 2, finished_at=None),
        add("job_leases", job_id=GONE, node_id="node-1", counts=True, **LANE),
    ],
    "jobs failed for known reasons alone": [
        put("jobs", 2, state="failed", error={"code": "internal_error", "message": "?"}),
        put("jobs", 2, state="failed", error=None),
    ],
    "one result: of one attempt, the last": [
        put("job_attempts", 0, outcome="succeeded"),
        put("job_attempts", 1, outcome="failed"),
        put("jobs", 0, result=None),
        put("jobs", 2, result=1),
    ],
    "one lease holder at a time": [
        put("job_attempts", 0, ended_at=at(2.001)),
        put("job_attempts", 0, ended_at=None),
        drop("job_attempts", 0),
    ],
    "a claim is one node's": [
        more("lines", Line("node-2", 1, "job_claimed", PARENT, 1)),
        more("lines", Line("node-1", 1, "job_claimed", PARENT, 3)),
        put("job_attempts", 0, node_id="node-2"),
    ],
    "no attempt finished a job that it had lost": [
        more("lines", Line("node-1", 1, "job_ended", PARENT, 1, "succeeded")),
        more("lines", Line("node-2", 2, "job_ended", PARENT, 2, "succeeded")),
        put("job_attempts", 1, outcome="released"),
        put("jobs", 0, state="failed"),
        put("jobs", 0, attempt=3),
    ],
    "events are numbered 1, 2, 3 ... and the last one of a job, no other, is final": [
        drop("job_events", 4),
        put("job_events", 2, state="failed"),
        put("job_events", 5, state="cancelled"),
        put("job_heads", 0, last_seq=7),
        add("job_events", **event(PARENT, 7, 2, "log", None, None)),
        drop("job_events", 10),
    ],
    "no event of an attempt that had lost the job": [
        put("job_events", 4, attempt=1),
        put("job_events", 4, seq=3.5),
        rows("job_events", lambda found: found[5].update(seq=5) or found[4].update(seq=6)),
    ],
    "one webhook row for a finished job that asked for one, and one id in all that was sent": [
        drop("webhook_deliveries", 0),
        add("webhook_deliveries", id="d2", job_id=PARENT, state="pending", attempts=0),
        add("webhook_deliveries", id="d2", job_id=GONE, state="pending", attempts=0),
        put("jobs", 0, webhook_url=None),
        more("deliveries", Delivery("d9", PARENT, "succeeded")),
        more("deliveries", Delivery("d1", PARENT, "failed")),
    ],
    "usage is the sum over attempts": [
        put("usage_records", 1, gpu_seconds=2.5),
        drop("usage_records", 0),
        add("usage_records", job_id=GONE, attempt=1, gpu_seconds=0.0),
    ],
    "no stream missed a row, or had one twice": [
        more("streams", Stream(GONE, ("2.0.0",), "cancelled")),
        more("streams", Stream(GONE, ("1.0.0", "1.0.0", "2.0.0"), "cancelled")),
        more("streams", Stream(GONE, ("2.0.0", "1.0.0"), "cancelled")),
        more("streams", Stream(GONE, ("1.0.0",), "cancelled")),
        more("streams", Stream(GONE, ("1.0.0", "2.0.0"), None)),
        more("streams", Stream(GONE, ("1.0.0", "2.0.0"), "succeeded")),
    ],
    "children ended with their parents, and none was started twice": [
        put("jobs", 1, state="running", finished_at=None),
        put("jobs", 1, parent_id="nobody"),
        put("jobs", 1, created_at=at(9.5)),
        add("job_children", parent_id=PARENT, child_id="second", name="c", generation=2),
    ],
    "lanes count the leases that there are": [
        put("queue_lanes", 0, running=1),
        add("job_leases", job_id=GONE, node_id="node-1", counts=True, **LANE),
    ],
    "the views that must be empty are empty": [
        add("v_invariants", rule="a lane counts its leases"),
        add("v_stuck_jobs", problem="lease ran out"),
    ],
    "every output is stored, and what is stored is an output or known to the cleaner": [
        lambda history: replace(history, objects=[]),
        lambda history: replace(history, objects=[Stored("t/parent/2/0-w.txt", 7)]),
        more("objects", Stored("t/nobody/1/0-w.txt", 8)),
        more("objects", Stored("t/parent/1/0-w.txt", 8)),
    ],
    "no process outlived what started it": [more("left", "a rank")],
    "each client had the answer that it waited for": [more("complaints", "500")],
}


def test_a_history_in_which_all_is_well_breaks_no_rule_and_each_looks_at_something() -> None:
    findings = check(good())

    assert broken(findings) == []
    assert {name for name, finding in findings.items() if not finding.looked_at} == {
        "jobs failed for known reasons alone"
    }


def test_an_object_that_a_killed_node_left_is_known_to_the_cleaner() -> None:
    history = replace(good(), objects=[*good().objects, Stored("t/parent/1/0-w.txt", 8)])
    killed = replace(history, lines=[line for line in history.lines if line.event != "outputs_discarded"])

    assert broken(check(killed)) == []


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize(
    ("name", "breaks"),
    [(name, breaks) for name, many in CASES.items() for breaks in many],
    ids=[f"{name}-{number}" for name, many in CASES.items() for number in range(len(many))],
)
def test_what_is_wrong_is_found_by_its_rule(name: str, breaks: Break) -> None:
    findings = check(breaks(good()))

    assert findings[name].broken, table(findings)
