"""The ledger: what the machine knows of leases, requests and usage, and the judgement after each step.

The rules are in ``machine``; what is right is ``oracle``'s to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from stoker import jobs
from stoker.errors import QueueFull
from stoker.ids import new_id
from stoker.job_values import Claim, ClaimRequest, ErrorReport, Failed, Lease, NewJob, Outcome, Output, QueueKey
from tests.protocol import oracle
from tests.protocol.oracle import LOST, After, Error, Seen
from tests.protocol.stage import APPS, TENANTS, Stage
from tests.support.job_world import LEASE_S, Node

ERRORS = [
    *(Error("app_error"), Error("app_error", retryable=True), Error("out_of_memory", crash=True, retryable=True)),
    *(Error("unavailable", retryable=True), Error("internal_error", retryable=True)),
    Error("crashed_beside", crash=True, retryable=True),
]
SUCCEED, STOP = "succeed", "stop"
ENDS: list[str | Error] = [SUCCEED, SUCCEED, STOP, *ERRORS]
KINDS = [(True,), (False,), (True, False)]
RUNNER_GPUS = 2


@dataclass
class Held:
    """A lease that somebody has. ``is_known``: the answer to its claim has come."""

    node: Node
    claim: Claim
    claimed_at: float
    renewed_at: float
    is_known: bool = True

    @property
    def held_gpu_s(self) -> float:
        return (self.renewed_at - self.claimed_at) * RUNNER_GPUS * self.claim.uses_gpus


class Ledger(RuleBasedStateMachine):
    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.stage.clear()
        self.nodes: dict[str, Node] = {}
        self.held: dict[Lease, Held] = {}
        self.former: list[Held] = []
        self.requests: dict[tuple[str, str], tuple[NewJob, UUID]] = {}
        self.usage: dict[tuple[str, int], float] = {}
        self.seen: Seen = self.stage.look()
        self.expected: list[Callable[[Seen], None]] = []
        self.unchanged = False

    # What always holds.

    @invariant()
    def holds(self) -> None:
        now = self.stage.look()
        assert oracle.wrong_moves(self.seen, now) == []
        if self.unchanged:
            assert oracle.changes(self.seen, now) == [], "what must not change anything did"
        for expected in self.expected:
            expected(now)
        assert self.stage.broken() == []
        assert oracle.hints_that_hide_a_job(now) == []
        leases = {(row["job_id"], row["attempt"]): (row["node_id"], row["boot_id"]) for row in now["job_leases"]}
        assert leases == {
            (str(lease.job_id), lease.attempt): (held.node.id, str(held.node.boot_id))
            for lease, held in self.held.items()
        }
        self.usage_is_right(now)
        self.seen, self.expected, self.unchanged = now, [], False

    def usage_is_right(self, now: Seen) -> None:
        """One row for each attempt that has ended, by the rules of who knows what it took; sums are of these rows."""
        counted = {(row["job_id"], row["attempt"]): row["gpu_seconds"] for row in now["usage_records"]}
        assert counted == pytest.approx(self.usage)
        useful = sum(row["gpu_seconds"] for row in now["usage_records"] if row["outcome"] == "succeeded")
        sums = self.stage.sums()
        assert sums["attempts"] == len(self.usage)
        assert sums["gpu_seconds"] == pytest.approx(sum(self.usage.values()))
        assert (sums["useful"], sums["wasted"]) == pytest.approx((useful, sums["gpu_seconds"] - useful))

    # What rules are made of.

    def run(self, doing: Any) -> Any:
        return self.stage.run(doing)

    def some_job(self, data: st.DataObject, key: str | None = None) -> tuple[str, NewJob]:
        tenant = data.draw(st.sampled_from([TENANTS[0], *TENANTS]))
        delay = data.draw(st.sampled_from([None, None, None, 3.0]))
        return tenant, NewJob(
            tenant_id=self.stage.tenants[tenant],
            version=self.stage.versions[data.draw(st.sampled_from([APPS[0], *APPS]))],
            endpoint=data.draw(st.sampled_from(["/", "/", "/cpu"])),
            input={},
            priority=data.draw(st.sampled_from([0, 5, 5, 9])),
            run_at=None if delay is None else datetime.fromtimestamp(self.stage.now + delay, UTC),
            start_timeout_s=data.draw(st.sampled_from([None, None, 5.0])),
            max_attempts=data.draw(st.sampled_from([1, 2, 3])),
            webhook_url=data.draw(st.sampled_from([None, "https://example.com/hook"])),
            idempotency_key=key,
        )

    def plain_job(self, tenant: str, app: str = APPS[0]) -> NewJob:
        version = self.stage.versions[app]
        return NewJob(tenant_id=self.stage.tenants[tenant], version=version, endpoint="/", input={})

    def store(self, asked: tuple[str, NewJob]) -> None:
        tenant, new = asked
        known = self.requests.get((tenant, new.idempotency_key or ""))
        if known is not None:
            return  # that is another rule's
        # Whether a limit counts is known from the version, as the API reads it.
        limit = oracle.by_id(self.stage.look()["apps"])[self.app_id(new.version.id)]["max_queue_length"]
        new = NewJob(**{**vars(new), "version": type(new.version)(**{**vars(new.version), "max_queue_length": limit})})
        if self.is_full(str(new.version.id)):
            self.unchanged = True
            with pytest.raises(QueueFull):
                self.run(jobs.submit(self.stage.db, new))
            return
        stored = self.run(jobs.submit(self.stage.db, new))
        due = new.run_at is None or new.run_at.timestamp() <= self.stage.now
        assert (stored.created, str(stored.state)) == (True, "queued" if due else "scheduled")
        self.seen = self.seen if self.seen["jobs"] else self.stage.look()
        if new.idempotency_key is not None:
            self.requests[tenant, new.idempotency_key] = (new, stored.job_id)

    def boot(self, node_id: str) -> None:
        self.nodes[node_id] = self.stage.node(node_id)
        due = [held for held in self.held.values() if held.node.id == node_id]
        moved = self.run(self.nodes[node_id].register())
        assert set(moved) == {held.claim.job_id for held in due}
        self.lost(due)

    def request(self, node: Node, app: str, kinds: tuple[bool, ...]) -> ClaimRequest:
        queues = tuple(QueueKey(self.stage.versions[app].id, gpus) for gpus in kinds)
        return ClaimRequest(node.id, node.boot_id, queues, "r0", LEASE_S)

    def next_of(self, request: ClaimRequest) -> set[str]:
        queues = {(str(queue.version_id), queue.uses_gpus) for queue in request.queues}
        return oracle.next_jobs(self.seen, queues, request.node_id, self.stage.now)

    def take(self, node: Node, claim: Claim | None, *, is_known: bool = True) -> None:
        """A lease more, and no cap passed by it."""
        if claim is None:
            self.unchanged = not self.expected
            return
        assert claim.lease not in self.held
        assert claim.attempt == self.job(claim.job_id)["attempt"] + 1
        self.held[claim.lease] = Held(node, claim, self.stage.now, self.stage.now, is_known)
        place = oracle.lane_of(self.job(claim.job_id))

        def within_caps(now: Seen) -> None:
            [lane] = [lane for lane in now["queue_lanes"] if oracle.lane_of(lane) == place]
            app = oracle.by_id(now["apps"])[lane["app_id"]]
            running = sum(other["running"] for other in now["queue_lanes"] if other["app_id"] == app["id"])
            assert lane["running"] <= lane["max_running"]
            assert running <= (app["max_running"] or running)

        self.expected.append(within_caps)

    def ends(self, held: Held, gpu_s: float) -> None:
        """The lease is gone; whoever had it may not know."""
        del self.held[held.claim.lease]
        self.former.append(held)
        self.usage[str(held.claim.job_id), held.claim.attempt] = gpu_s

    def lost(self, due: list[Held], moved: list[jobs.Moved] | None = None) -> None:
        """Exactly these leases were taken back."""
        for held in due:
            self.expect_after(held.claim, self.after(held.claim, LOST))
            self.ends(held, held.held_gpu_s)
        if moved is not None:
            assert sorted((one.job_id, one.attempt) for one in moved) == sorted(
                (held.claim.job_id, held.claim.attempt) for held in due
            )
            self.unchanged = not due

    def after(self, claim: Claim, how: str | Error) -> After:
        job = self.job(claim.job_id)
        if isinstance(how, Error):
            return oracle.after_error(job, oracle.excused_so_far(self.seen, job["id"]), how)
        return After("succeeded" if how == SUCCEED else "cancelled", job["failures"], job["crashes"])

    def expect_after(self, claim: Claim, after: After) -> None:
        job_id, now_s = str(claim.job_id), self.stage.now

        def became(now: Seen) -> None:
            job = oracle.by_id(now["jobs"])[job_id]
            assert job["state"] == after.state
            if after.state != "cancelled":
                assert (job["failures"], job["crashes"]) == (after.failures, after.crashes)
            if after.state == "scheduled":
                assert after.pause_s / 2 - 0.01 <= oracle.seconds(job["available_at"]) - now_s <= after.pause_s + 0.01

        self.expected.append(became)

    def expect(self, job_id: str, column: str, value: Any) -> None:
        def is_so(now: Seen) -> None:
            assert oracle.by_id(now["jobs"])[job_id][column] == value

        self.expected.append(is_so)

    def expect_time(self, job_id: str, column: str, at: float) -> None:
        def is_so(now: Seen) -> None:
            assert oracle.seconds(oracle.by_id(now["jobs"])[job_id][column]) == pytest.approx(at)

        self.expected.append(is_so)

    def some_held(self, data: st.DataObject) -> Held:
        return self.held[data.draw(st.sampled_from(sorted(self.held, key=lambda lease: (lease.job_id, lease.attempt))))]

    def some_former(self, data: st.DataObject) -> Held:
        return data.draw(st.sampled_from(self.former))

    def job(self, job_id: UUID) -> dict[str, Any]:
        return oracle.by_id(self.seen["jobs"])[str(job_id)]

    def last_seq(self, job_id: str) -> int:
        return next(row["last_seq"] for row in self.seen["job_heads"] if row["job_id"] == job_id)

    def app_id(self, version_id: UUID) -> str:
        return next(row["id"] for row in self.seen["apps"] if row["name"] == self.app_of(str(version_id)))

    def app_of(self, version_id: str) -> str:
        return next(app for app, version in self.stage.versions.items() if str(version.id) == version_id)

    def is_full(self, version_id: str) -> bool:
        limit = oracle.by_id(self.seen["apps"])[self.app_id(UUID(version_id))]["max_queue_length"]
        waiting = [
            job
            for job in self.seen["jobs"]
            if job["version_id"] == version_id and job["state"] in ("scheduled", "queued")
        ]
        return limit is not None and len(waiting) >= limit


def outcome_of(claim: Claim, how: str | Error) -> Outcome:
    """What a node would record."""
    if isinstance(how, Error):
        return Failed(ErrorReport(code=how.code, message="it failed", crash=how.crash, retryable=how.retryable))
    if how == STOP:
        return jobs.Stopped()
    token = f"{claim.job_id}.{claim.attempt}"
    output = Output(new_id(), "a.png", "/image", f"t/{token}/a.png", "image/png", 3, "ab" * 32, token)
    return jobs.Succeeded({"n": claim.attempt}, (output,))
