"""The machine: everything that callers, nodes, reapers, admins and the clock may do to jobs, in any order.

Each rule acts through the same functions as the API, the nodes and the control loop, and says what has to come of it.
After each, the rows of all jobs are read and judged against that and against what always holds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from stoker import app_limits, jobs, lanes, tenants
from stoker.errors import Conflict, IdempotencyConflict, LeaseLost, NotFound, QueueFull
from stoker.events import EventKind
from stoker.job_values import NewJob, Usage
from tests.protocol import oracle
from tests.protocol.ledger import ENDS, ERRORS, KINDS, RUNNER_GPUS, STOP, SUCCEED, Held, Ledger, outcome_of
from tests.protocol.oracle import After, Error, Seen
from tests.protocol.stage import APPS, NODES, TENANTS
from tests.support.job_world import LEASE_S


class Protocol(Ledger):
    # Callers.

    @initialize(data=st.data(), cap=st.sampled_from([None, 1]), app_cap=st.sampled_from([None, 2]))
    def begin(self, data: st.DataObject, cap: int | None, app_cap: int | None) -> None:
        """Two nodes, and something to do; in some worlds less of it at a time."""
        for node_id in NODES:
            self.boot(node_id)
        self.limit_a_tenant(TENANTS[0], cap, 1.0)
        self.limit_an_app(APPS[0], app_cap, None)
        for tenant in (*TENANTS[:2], TENANTS[0]):
            self.store((tenant, self.plain_job(tenant)))
        self.store(self.some_job(data))

    @rule()
    def submit_alike(self) -> None:
        """What differs in nothing but its tenant is shared by what each was served."""
        for tenant in (*TENANTS, TENANTS[0]):
            self.store((tenant, self.plain_job(tenant)))
            self.holds()

    @rule(data=st.data(), key=st.sampled_from([None, None, "k1", "k2"]))
    def submit(self, data: st.DataObject, key: str | None) -> None:
        self.store(self.some_job(data, key))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), same=st.booleans())
    def submit_with_a_known_key(self, data: st.DataObject, same: bool) -> None:
        """The same request finds its job, at any time; another one is refused."""
        tenant, key = data.draw(st.sampled_from(sorted(self.requests)))
        first, job_id = self.requests[tenant, key]
        self.unchanged = True
        if same:
            again = self.run(jobs.submit(self.stage.db, first))
            assert (again.job_id, again.created) == (job_id, False)
        else:
            other = NewJob(**{**vars(first), "input": {"other": True}})
            with pytest.raises(IdempotencyConflict):
                self.run(jobs.submit(self.stage.db, other))

    @precondition(lambda self: self.seen["jobs"])
    @rule(data=st.data(), stranger=st.sampled_from([False, False, True]))
    def cancel(self, data: st.DataObject, stranger: bool) -> None:
        job = data.draw(st.sampled_from(self.seen["jobs"]))
        job_id, asked = UUID(job["id"]), self.stage.now
        if stranger:
            self.unchanged = True
            other = next(tenant for tenant in self.stage.tenants.values() if str(tenant) != job["tenant_id"])
            with pytest.raises(NotFound):
                self.run(jobs.request_cancel(self.stage.db, job_id, other))
        elif job["state"] in oracle.FINAL_STATES:
            self.unchanged = True
            with pytest.raises(Conflict):
                self.run(jobs.request_cancel(self.stage.db, job_id, None))
        else:
            result = self.run(jobs.request_cancel(self.stage.db, job_id, UUID(job["tenant_id"])))
            runs = job["state"] == "running"
            assert (str(result.state), result.node_id is not None) == ("running" if runs else "cancelled", runs)
            self.expect(job["id"], "state", str(result.state))
            first = job["cancel_requested_at"]
            self.expect_time(job["id"], "cancel_requested_at", oracle.seconds(first) if first else asked)

    @precondition(lambda self: self.seen["jobs"])
    @rule(data=st.data())
    def retry_by_hand(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.seen["jobs"]))
        retrying = jobs.retry(self.stage.db, UUID(job["id"]), UUID(job["tenant_id"]))
        if job["state"] not in oracle.FINAL_STATES:
            self.unchanged = True
            with pytest.raises(Conflict):
                self.run(retrying)
        elif not self.is_full(job["version_id"]):
            again = self.run(retrying)
            assert again.created
            self.expect(str(again.job_id), "retried_from", job["id"])
        else:
            self.unchanged = True
            with pytest.raises(QueueFull):
                self.run(retrying)

    # Nodes.

    @rule(
        node=st.sampled_from(NODES),
        app=st.sampled_from(APPS),
        kinds=st.sampled_from(KINDS),
    )
    def claim(self, node: str, app: str, kinds: tuple[bool, ...]) -> None:
        """A doorbell or a look; one bell too many is a claim that finds nothing."""
        self.claim_now(node, app, kinds)

    def claim_now(self, node: str, app: str, kinds: tuple[bool, ...]) -> bool:
        """Whether there was something."""
        request = self.request(self.nodes[node], app, kinds)
        awaited = self.next_of(request)
        got = self.run(jobs.claim(self.stage.db, request))
        assert str(got.job_id) in awaited if got is not None else not awaited
        self.take(self.nodes[node], got)
        self.holds()
        return got is not None

    @rule(node=st.sampled_from(NODES), app=st.sampled_from(APPS))
    def claim_and_lose_the_answer(self, node: str, app: str) -> None:
        got = self.run(jobs.claim(self.stage.db, self.request(self.nodes[node], app, (True, False))))
        self.take(self.nodes[node], got, is_known=False)

    @rule(app=st.sampled_from([APPS[0], *APPS]))
    def ring_for_all(self, app: str) -> None:
        """Bells to spare: nodes claim until there is nothing left that they may have."""
        while any(self.claim_now(node, app, (True, False)) for node in NODES):
            pass

    @precondition(lambda self: self.held or self.former)
    @rule(node=st.sampled_from(NODES), told=st.booleans())
    def heartbeat(self, node: str, told: bool) -> None:
        """``told``: it still names leases that it lost, as one that stood still would."""
        named = [held for held in self.held.values() if held.node is self.nodes[node] and held.is_known]
        lost = [held for held in self.former if held.node is self.nodes[node]] if told else []
        lost = [held for held in lost if held.claim.lease not in self.held]
        renewal = self.run(self.nodes[node].renew(*(held.claim for held in named + lost)))
        asked = {job["id"] for job in self.seen["jobs"] if job["cancel_requested_at"]}
        assert renewal.lost == {held.claim.lease for held in lost}
        assert renewal.cancelled == {held.claim.lease for held in named if str(held.claim.job_id) in asked}
        assert renewal.unnamed == {
            lease for lease, held in self.held.items() if held.node is self.nodes[node] and not held.is_known
        }
        for held in named:
            held.renewed_at = self.stage.now
        self.unchanged = not named

    @precondition(lambda self: self.held)
    @rule(data=st.data(), count=st.integers(1, 3))
    def say(self, data: st.DataObject, count: int) -> None:
        held = self.some_held(data)
        before = self.last_seq(str(held.claim.job_id))
        said = [(EventKind.LOG, {"n": n}) for n in range(count)]
        assert self.run(jobs.append_events(self.stage.db, held.claim.lease, said)) == before + count

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(ENDS), gpu_s=st.sampled_from([0.0, 0.5, 40.0]), follows=st.booleans())
    def finish(self, data: st.DataObject, how: str | Error, gpu_s: float, follows: bool) -> None:
        held = self.some_held(data)
        claim = held.claim
        then = self.request(held.node, claim.app, (claim.uses_gpus,)) if follows else None
        ending = jobs.finish(
            self.stage.db, claim.lease, outcome_of(claim, how), Usage(gpu_s, RUNNER_GPUS, True, {"run": 1.0}), then=then
        )
        after = self.after(claim, how)
        finished = self.run(ending)
        assert (finished.applied, str(finished.state)) == (True, after.state)
        self.ends(held, gpu_s)
        if finished.next is None or finished.next.job_id != claim.job_id:
            self.expect_after(claim, after)
        if finished.next is not None:
            self.take(held.node, finished.next)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), usage=st.sampled_from([None, Usage(3.0, RUNNER_GPUS)]))
    def give_back(self, data: st.DataObject, usage: Usage | None) -> None:
        """A node drains, or hears of a claim whose answer never came."""
        held = self.some_held(data)
        [moved] = self.run(jobs.release(self.stage.db, {held.claim.lease: usage}, "drain"))
        state = "cancelled" if self.job(held.claim.job_id)["cancel_requested_at"] else "queued"
        assert (moved.job_id, str(moved.state), moved.attempt) == (held.claim.job_id, state, held.claim.attempt)
        was = self.job(held.claim.job_id)
        self.expect_after(held.claim, After(state, was["failures"], was["crashes"]))
        self.ends(held, held.held_gpu_s if usage is None else usage.gpu_seconds)

    @rule(node=st.sampled_from(NODES))
    def restart(self, node: str) -> None:
        """A new boot; the old one may go on, and nothing of it counts."""
        self.boot(node)

    # Zombies: who has lost the lease and does not know.

    @precondition(lambda self: self.former)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """Best where another attempt runs: that one is what a zombie could harm."""
        runs = {UUID(job["id"]) for job in self.seen["jobs"] if job["state"] == "running"}
        again = [held for held in self.former if held.claim.job_id in runs]
        self.write_too_late(data.draw(st.sampled_from(again or self.former)))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def stand_still_and_go_on(self, data: st.DataObject) -> None:
        """Past the lease, until others have what was its."""
        held = self.some_held(data)
        self.advance(LEASE_S + 1)
        self.holds()
        self.reap(1, None)
        self.holds()
        for node in (*NODES, *NODES):
            self.claim_now(node, held.claim.app, (held.claim.uses_gpus,))
        self.write_too_late(held)

    def write_too_late(self, held: Held) -> None:
        """All that an attempt may write, with the next claim and the newest progress."""
        claim, usage = held.claim, Usage(1000.0, RUNNER_GPUS)
        self.store((TENANTS[1], self.plain_job(TENANTS[1], claim.app)))  # there is something to take
        self.holds()
        then = self.request(held.node, claim.app, (True, False))
        for how in (SUCCEED, STOP, *ERRORS):
            for next_one in (None, then):
                late = jobs.finish(self.stage.db, claim.lease, outcome_of(claim, how), usage, then=next_one)
                assert self.run(late) == jobs.Finished(applied=False)
        with pytest.raises(LeaseLost):
            self.run(jobs.append_events(self.stage.db, claim.lease, [(EventKind.OUTPUT, {})]))
        assert self.run(held.node.renew(claim, progress={claim.job_id: {"step": 99}})).lost == {claim.lease}
        assert self.run(jobs.release(self.stage.db, {claim.lease: usage}, "drain")) == []
        self.unchanged = True

    # The control loop and the clock.

    @rule(by_s=st.sampled_from([0.5, 2.0, 6.0, 16.0, 16.0, 61.0]))
    def advance(self, by_s: float) -> None:
        self.stage.advance(by_s)
        self.unchanged = True

    @rule(reapers=st.integers(1, 3), back_ago_s=st.sampled_from([None, None, 1.0, 40.0]))
    def reap(self, reapers: int, back_ago_s: float | None) -> None:
        """Several at once; ``back_ago_s``: Postgres was away until then."""
        now = self.stage.now
        spared = back_ago_s is not None and now - back_ago_s + LEASE_S >= now
        due = [held for held in self.held.values() if held.renewed_at + LEASE_S < now and not spared]
        since = None if back_ago_s is None else datetime.fromtimestamp(now - back_ago_s, UTC)
        reaped = self.stage.both(*(jobs.reap(self.stage.db, back_since=since) for _ in range(reapers)))
        self.lost(due, [moved for each in reaped for moved in each])

    @rule()
    def expire_unstarted(self) -> None:
        late = {
            job["id"]
            for job in self.seen["jobs"]
            if job["state"] in ("scheduled", "queued")
            and job["attempt"] == 0
            and oracle.seconds(job["start_deadline"]) <= self.stage.now
        }
        expired = self.run(jobs.expire_unstarted(self.stage.db))
        assert {str(moved.job_id) for moved in expired} == late
        for job_id in late:
            self.expect(job_id, "state", "failed")
        self.unchanged = not late

    @rule()
    def promote_due(self) -> None:
        due = [
            job
            for job in self.seen["jobs"]
            if job["state"] == "scheduled" and oracle.seconds(job["available_at"]) <= self.stage.now
        ]
        rung = self.run(jobs.promote_due(self.stage.db))
        assert set(rung) == {self.app_of(job["version_id"]) for job in due}
        for job in due:
            self.expect(job["id"], "state", "queued")
        self.unchanged = not due

    @rule()
    def tick(self) -> None:
        self.run(lanes.tend(self.stage.db))

        def tidy(now: Seen) -> None:
            assert oracle.untidy_lanes(now) == []

        self.expected.append(tidy)

    @precondition(lambda self: self.held)
    @rule()
    def work_for_long(self) -> None:
        """Attempts whose nodes are heard of for long enough that they are charged before they end."""
        self.advance(12.0)
        for node in NODES:
            self.heartbeat(node, told=False)
            self.holds()
        self.charge_running(2)

    @rule(replicas=st.integers(1, 2))
    def charge_running(self, replicas: int) -> None:
        """By several at once no more than by one."""
        taken = {
            str(lease.job_id): (held.renewed_at - held.claimed_at) * (RUNNER_GPUS if held.claim.uses_gpus else 1)
            for lease, held in self.held.items()
        }
        before, due = self.seen, oracle.due_for_running(self.seen, taken)
        self.stage.both(*(lanes.charge_running(self.stage.db) for _ in range(replicas)))

        def charged(now: Seen) -> None:
            assert oracle.charged_more(before, now) == pytest.approx(due)

        self.expected.append(charged)
        self.unchanged = not due

    # Admins.

    @rule(app=st.sampled_from(APPS), paused=st.sampled_from([False, False, True]))
    def pause_or_resume(self, app: str, paused: bool) -> None:
        self.run((app_limits.pause if paused else app_limits.resume)(self.stage.db, app))

    @rule(app=st.sampled_from(APPS), cap=st.sampled_from([None, 1, 2]), length=st.sampled_from([None, None, 4]))
    def limit_an_app(self, app: str, cap: int | None, length: int | None) -> None:
        limits = {"max_running": cap, "max_queue_length": length}
        self.run(app_limits.set_limits(self.stage.db, app, limits))

    @rule(tenant=st.sampled_from(TENANTS), cap=st.sampled_from([None, 1]), weight=st.sampled_from([0.5, 1.0, 4.0]))
    def limit_a_tenant(self, tenant: str, cap: int | None, weight: float) -> None:
        self.run(tenants.set_limits(self.stage.db, tenant, weight=weight, max_running=cap, uncapped=cap is None))
