"""The checker: what must be true of a history, whatever failed while it was made. Pure.

Each rule looks at a part of the history and says what breaks it, in words. It also says at how much it looked: a rule
that saw nothing has proved nothing. ``./run chaos`` and the tests beside it bring histories.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.history import FINAL, History, Row

MOST_SHOWN = 5
BY_FAULT = frozenset(
    {"node_lost", "worker_crashed", "crashed_beside", "unavailable", "storage_unavailable", "child_failed"}
)
"""Why a job may have failed that asked for nothing wrong: too many machines died under it, or an engine stayed away."""
AS_ASKED = frozenset({"app_error", "start_timeout"})


@dataclass
class Finding:
    """What a rule looked at, and what broke it."""

    looked_at: int = 0
    broken: list[str] = field(default_factory=list)

    def must(self, is_so: bool, otherwise: str) -> None:
        self.looked_at += 1
        if not is_so:
            self.broken.append(otherwise)


Rule = Callable[[History, Finding], None]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    def add(check: Rule) -> Rule:
        RULES[name] = check
        return check

    return add


def check(history: History) -> dict[str, Finding]:
    """What each rule found."""
    findings = {}
    for name, look in RULES.items():
        findings[name] = finding = Finding()
        look(history, finding)
    return findings


def broken(findings: dict[str, Finding]) -> list[str]:
    """All that is wrong, a line each."""
    return [f"{name}: {text}" for name, finding in findings.items() for text in finding.broken]


def table(findings: dict[str, Finding]) -> str:
    """For people."""
    width = max(map(len, findings))
    lines = [f"{'rule':<{width}}  {'looked at':>9}  {'broken':>6}"]
    for name, finding in findings.items():
        lines.append(f"{name:<{width}}  {finding.looked_at:>9,}  {len(finding.broken):>6}")
        lines += [f"    {text}" for text in finding.broken[:MOST_SHOWN]]
    return "\n".join(lines)


@rule("every acknowledged POST is one job, and a key makes no second")
def _acknowledged(history: History, found: Finding) -> None:
    jobs = history.jobs()
    by_op: dict[str, set[str]] = defaultdict(set)
    for job_id, job in jobs.items():
        for tag in job["tags"]:
            by_op[tag].add(job_id)
    tries: dict[str, list[Any]] = defaultdict(list)
    for answer in history.answers:
        tries[answer.op].append(answer)
        if answer.job_id is not None:
            found.must(answer.job_id in by_op[answer.op], f"{answer.op} was answered with {answer.job_id}: no such job")
    for op, answers in tries.items():
        if any(answer.key is not None for answer in answers):
            found.must(len(by_op[op]) <= 1, f"{op} with its key made jobs {sorted(by_op[op])}")
        else:
            found.must(len(by_op[op]) <= len(answers), f"{op}: {len(answers)} POSTs made {len(by_op[op])} jobs")
    for job_id, job in jobs.items():
        found.must(bool(job["parent_id"]) or any(tag in tries for tag in job["tags"]), f"nobody asked for {job_id}")


@rule("every job ended, in one of the final states")
def _ended(history: History, found: Finding) -> None:
    for job_id, job in history.jobs().items():
        found.must(job["state"] in FINAL, f"{job_id} is {job['state']} (attempt {job['attempt']})")
        found.must((job["finished_at"] is not None) == (job["state"] in FINAL), f"{job_id}: finished_at")
    for lease in history.of("job_leases"):
        found.must(False, f"{lease['job_id']} is still leased to {lease['node_id']}")


@rule("jobs failed for known reasons alone")
def _failed(history: History, found: Finding) -> None:
    for job_id, job in history.jobs().items():
        if job["state"] == "failed":
            code = (job["error"] or {}).get("code")
            found.must(
                code in BY_FAULT | AS_ASKED, f"{job_id} failed with {code}: {(job['error'] or {}).get('message')}"
            )


@rule("one result: of one attempt, the last")
def _one_result(history: History, found: Finding) -> None:
    jobs = history.jobs()
    for job_id, attempts in history.by_job("job_attempts", "attempt"):
        job = jobs.get(job_id)
        winners = [row["attempt"] for row in attempts if row["outcome"] == "succeeded"]
        wanted = [job["attempt"]] if job is not None and job["state"] == "succeeded" else []
        found.must(winners == wanted, f"{job_id} is {job and job['state']}, attempts {winners} succeeded")
        has_result = job is not None and job["result"] is not None
        found.must(has_result == bool(wanted), f"{job_id} is {job and job['state']} with a result: {has_result}")


@rule("one lease holder at a time")
def _one_holder(history: History, found: Finding) -> None:
    for job_id, attempts in history.by_job("job_attempts", "attempt"):
        numbers = [row["attempt"] for row in attempts]
        found.must(numbers == list(range(1, len(numbers) + 1)), f"{job_id} has attempts {numbers}")
        for before, after in pairwise(attempts):
            ended = before["ended_at"]
            found.must(
                ended is not None and ended <= after["claimed_at"],
                f"{job_id}: attempt {after['attempt']} was claimed while {before['attempt']} held it",
            )


@rule("a claim is one node's")
def _one_claimer(history: History, found: Finding) -> None:
    attempts = history.attempts()
    claimers: dict[tuple[str, int], list[str]] = defaultdict(list)
    for line in history.lines:
        if line.event == "job_claimed":
            claimers[line.job_id, line.attempt].append(line.process)
    for (job_id, attempt), processes in claimers.items():
        row = attempts.get((job_id, attempt))
        found.must(
            row is not None and processes == [row["node_id"]],
            f"{job_id}, attempt {attempt} was claimed by {processes}; the row says {row and row['node_id']}",
        )


@rule("no attempt finished a job that it had lost")
def _no_late_finish(history: History, found: Finding) -> None:
    attempts, jobs = history.attempts(), history.jobs()
    enders: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for line in history.lines:
        if line.event in ENDS:
            enders[line.job_id, line.attempt].append(line)
    for (job_id, number), lines in enders.items():
        said = [f"{line.event} by {line.process}" for line in lines]
        found.must(len(lines) == 1, f"{job_id}, attempt {number} ended more than once: {said}")
        row = attempts.get((job_id, number))
        outcome = row and row["outcome"]
        found.must(outcome in ENDS[lines[0].event], f"{job_id}, attempt {number}: {said}, and the row says {outcome}")
        if lines[0].state in FINAL:
            job = jobs.get(job_id)
            now = job and (job["state"], job["attempt"])
            found.must(now == (lines[0].state, number), f"{job_id}: {said} as {lines[0].state}, and it is {now}")


ENDS = {
    "job_ended": {"succeeded", "failed", "cancelled"},
    "job_released": {"released", "cancelled"},
    "claim_lost": {"released", "cancelled"},
    "job_reaped": {"lease_lost"},
    "job_taken_back": {"lease_lost"},
}
"""The lines by which a process says that it ended an attempt, and the outcomes that the row may have then."""


@rule("events are numbered 1, 2, 3 ... and the last one of a job, no other, is final")
def _events(history: History, found: Finding) -> None:
    jobs = history.jobs()
    heads = {row["job_id"]: row["last_seq"] for row in history.of("job_heads")}
    for job_id, events in history.by_job("job_events", "seq"):
        seqs = [event["seq"] for event in events]
        found.must(
            seqs == list(range(1, len(seqs) + 1)) and heads.get(job_id) == len(seqs),
            f"{job_id}: seqs {seqs}, head {heads.get(job_id)}",
        )
        finals = [event["seq"] for event in events if event["state"] in FINAL]
        job = jobs.get(job_id)
        if job is not None:
            wanted = seqs[-1:] if job["state"] in FINAL else []
            found.must(finals == wanted, f"{job_id} is {job['state']}: final events {finals} of {len(seqs)}")
            said = [event["state"] for event in events if event["kind"] == "state"]
            found.must(said[-1:] == [job["state"]], f"{job_id} is {job['state']}, its events say {said}")


@rule("no event of an attempt that had lost the job")
def _no_late_event(history: History, found: Finding) -> None:
    for job_id, events in history.by_job("job_events", "seq"):
        holder = 0
        for event in events:
            if event["reason"] == "claimed":
                holder = event["attempt"]
            elif event["kind"] != "state":
                found.must(
                    event["attempt"] == holder != 0,
                    f"{job_id}: event {event['seq']} is of attempt {event['attempt']}, and {holder or 'none'} held it",
                )
            else:
                holder = 0


@rule("one webhook row for a finished job that asked for one, and one id in all that was sent")
def _webhooks(history: History, found: Finding) -> None:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in history.of("webhook_deliveries"):
        rows[row["job_id"]].append(row)
    jobs = history.jobs()
    for job_id, job in jobs.items():
        wanted = int(job["webhook_url"] is not None and job["state"] in FINAL)
        found.must(len(rows[job_id]) == wanted, f"{job_id}: {len(rows[job_id])} webhook rows, {wanted} wanted")
    asked = {answer.job_id for answer in history.answers if answer.wants_webhook}
    for job_id in asked & jobs.keys():
        found.must(jobs[job_id]["webhook_url"] is not None, f"{job_id} forgot its webhook")
    for sent in history.deliveries:
        ids = [row["id"] for row in rows[sent.job_id]]
        found.must(ids == [sent.webhook_id], f"{sent.job_id} was announced as {sent.webhook_id}, its rows are {ids}")
        state = jobs[sent.job_id]["state"] if sent.job_id in jobs else None
        found.must(sent.state == state, f"{sent.job_id} was announced as {sent.state}, it is {state}")


@rule("usage is the sum over attempts")
def _usage(history: History, found: Finding) -> None:
    used = {(row["job_id"], row["attempt"]): row["gpu_seconds"] for row in history.of("usage_records")}
    attempts = history.attempts()
    for key, row in attempts.items():
        found.must(
            abs(row["gpu_seconds"] - used.get(key, 0.0)) < 1e-9,
            f"{key[0]}, attempt {key[1]} took {row['gpu_seconds']} GPU-seconds, charged {used.get(key)}",
        )
    for job_id, number in used.keys() - attempts.keys():
        found.must(False, f"{job_id}, attempt {number} was charged and is no attempt")
    total, charged = sum(row["gpu_seconds"] for row in attempts.values()), sum(used.values())
    found.must(abs(total - charged) < 1e-6, f"attempts took {total} GPU-seconds, {charged} were charged")


@rule("no stream missed a row, or had one twice")
def _streams(history: History, found: Finding) -> None:
    heads = {row["job_id"]: row["last_seq"] for row in history.of("job_heads")}
    jobs = history.jobs()
    for stream in history.streams:
        ids = [tuple(map(int, each.split("."))) for each in stream.ids]
        rows = [seq for seq, _, n in ids if n == 0]
        found.must(ids == sorted(set(ids)), f"{stream.job_id}: ids out of order: {stream.ids}")
        found.must(rows == list(range(1, len(rows) + 1)), f"{stream.job_id}: rows {rows}")
        found.must(
            stream.ended is not None and len(rows) == heads.get(stream.job_id),
            f"{stream.job_id}: {len(rows)} of {heads.get(stream.job_id)} rows, ended {stream.ended}",
        )
        state = jobs[stream.job_id]["state"] if stream.job_id in jobs else None
        found.must(
            stream.ended in (None, state), f"{stream.job_id} ended as {stream.ended} for a client, it is {state}"
        )


@rule("children ended with their parents, and none was started twice")
def _children(history: History, found: Finding) -> None:
    jobs = history.jobs()
    named: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in history.of("job_children"):
        named[row["parent_id"], row["name"]].append(row)
    for (parent_id, name), rows in named.items():
        again = [row["child_id"] for row in sorted(rows, key=lambda row: row["generation"])[:-1]]
        done = [child for child in again if child in jobs and jobs[child]["state"] not in ("failed", "cancelled")]
        found.must(not done, f"{parent_id} called {name} again although {done} had not failed")
    for job_id, job in jobs.items():
        if job["parent_id"] is None:
            continue
        parent = jobs.get(job["parent_id"])
        found.must(parent is not None, f"{job_id} has a parent that is not there")
        if parent is not None and parent["state"] in FINAL:
            found.must(job["state"] in FINAL, f"{job_id} is {job['state']}, its parent {parent['state']}")
            found.must(
                job["created_at"] <= parent["finished_at"], f"{job_id} was started by {parent['id']}, which had ended"
            )


@rule("lanes count the leases that there are")
def _lanes(history: History, found: Finding) -> None:
    held: dict[tuple[Any, ...], int] = defaultdict(int)
    for lease in history.of("job_leases"):
        held[lease["version_id"], lease["uses_gpus"], lease["tenant_id"]] += bool(lease["counts"])
    for lane in history.of("queue_lanes"):
        counted = held[lane["version_id"], lane["uses_gpus"], lane["tenant_id"]]
        found.must(lane["running"] == counted, f"a lane of {lane['tenant_id']} counts {lane['running']}, not {counted}")


@rule("the views that must be empty are empty")
def _views(history: History, found: Finding) -> None:
    for view in ("v_invariants", "v_stuck_jobs"):
        found.must(not history.of(view), f"{view}: {list(history.of(view))[:MOST_SHOWN]}")


@rule("every output is stored, and what is stored is an output or known to the cleaner")
def _objects(history: History, found: Finding) -> None:
    jobs = history.jobs()
    stored = {each.key: each.size_bytes for each in history.objects}
    wanted = {row["key"]: row["size_bytes"] for row in history.of("job_outputs")}
    for key, size in wanted.items():
        found.must(stored.get(key) == size, f"{key}: {stored.get(key)} bytes stored, {size} recorded")
    discarded = {(line.job_id, line.attempt) for line in history.lines if line.event == "outputs_discarded"}
    for each in history.objects:
        if each.key not in wanted:
            # Retention deletes a job's folder with its rows: what has no row of its job would stay for ever.
            found.must(each.job_id in jobs, f"{each.key} belongs to no job: nobody would delete it")
            found.must((each.job_id, each.attempt) not in discarded, f"{each.key} was said to be deleted")


@rule("no process outlived what started it")
def _processes(history: History, found: Finding) -> None:
    found.looked_at += 1
    found.broken += [f"{left} is still there" for left in history.left]


@rule("each client had the answer that it waited for")
def _clients(history: History, found: Finding) -> None:
    found.looked_at += len(history.answers) + len(history.streams)
    found.broken += history.complaints


def states(history: History) -> Iterator[tuple[str, int]]:
    """How many jobs ended how, failures by their code."""
    counts: dict[str, int] = defaultdict(int)
    for job in history.jobs().values():
        code = f" ({(job['error'] or {}).get('code')})" if job["state"] == "failed" else ""
        counts[f"{job['state']}{code}"] += 1
    yield from sorted(counts.items(), key=lambda count: -count[1])
