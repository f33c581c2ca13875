"""Attempt: one claimed job on this node, its clocks, and why it should stop.

It holds no I/O: timers of the event loop and flags. The executor runs it, the heartbeat renews it, a cancel or a
drain stops it. An attempt that cannot be renewed stops its work before its lease ends: no other node starts while it
still runs. How it ended may be recorded later than that: whether it may, Postgres says then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any
from uuid import UUID

from stoker.errors import ExecutionError, JobCancelled, RunTimeout, StallTimeout, StokerError, Unavailable
from stoker.jobs import Claim, ErrorReport, Failed, Lease, Stopped
from worker_node.host_call import CANCEL_GRACE_S, CANCEL_REBUILD_S

STOPPING_S = CANCEL_GRACE_S + CANCEL_REBUILD_S + 0.5
"""How long it may take until work that does not heed a cancel is gone: its graces, and the killing."""
KILLING_S = 0.5


class StopReason(StrEnum):
    CANCEL = "cancel"
    RUN_TIMEOUT = "run_timeout"
    STALL_TIMEOUT = "stall_timeout"
    LEASE_LOST = "lease_lost"
    NOT_RENEWED = "not_renewed"
    DRAIN = "drain"
    NO_SLOTS = "no_slots"


GIVEN_BACK = {StopReason.DRAIN: "node_draining", StopReason.NO_SLOTS: "slots_not_left"}
"""Of an attempt that ends for these it is no end: the job is queued as it was; what its events say of that."""


def safe_until(asked_at: float, lease_s: float) -> float:
    """Until when work may go on under a lease that was asked for at ``asked_at``, by this node's own clock.

    The margin is what it takes to stop; of a very short lease, as much as leaves time to renew it.
    """
    return asked_at + lease_s - _margin_s(lease_s)


def kill_after_s(lease_s: float) -> float:
    """How long work is asked to stop before it is killed, where it has to be gone before its lease ends."""
    return max(0.0, _margin_s(lease_s) - KILLING_S)


def _margin_s(lease_s: float) -> float:
    return min(STOPPING_S, lease_s * 0.4)


def outcome_without_result(reason: StopReason | None, error: StokerError, claim: Claim) -> Failed | Stopped:
    """What to record for an attempt that was stopped for ``reason`` (None: by itself) and raised ``error``."""
    if reason is StopReason.RUN_TIMEOUT:
        return Failed(ErrorReport.of(RunTimeout(f"the job ran longer than {claim.run_timeout_s:g} s")))
    if reason is StopReason.STALL_TIMEOUT:
        return Failed(ErrorReport.of(StallTimeout(f"no progress for {claim.stall_timeout_s:g} s")))
    if reason is StopReason.NOT_RENEWED:
        return Failed(ErrorReport.of(Unavailable("the node stopped the job: it could not renew its lease in Postgres")))
    if reason is StopReason.CANCEL or isinstance(error, JobCancelled):
        return Stopped()
    return Failed(ErrorReport.of(error))


class Attempt:
    """All methods belong on the event loop's thread."""

    def __init__(self, claim: Claim, *, safe_until: float, kill_after_s: float = STOPPING_S) -> None:
        self.claim = claim
        self.lease: Lease = claim.lease
        self.kill_after_s = kill_after_s
        self.reason: StopReason | None = None
        self.stopped = asyncio.Event()
        self.hurried = asyncio.Event()
        """Another node may start the job soon, or has: its work here has no time for a grace."""
        self.lease_lost = asyncio.Event()
        self.is_draining = False
        self.has_stored = False
        """Whether there may be objects under this attempt's keys."""
        self.recorded: set[str] = set()
        """The keys that rows name already, whatever becomes of the result."""
        self.newest_progress: dict[str, Any] | None = None
        self.kept_progress: dict[str, Any] | None = None
        """What Postgres has of it."""
        self.is_begun = False
        """Whether its run has: until then it may wait behind another's."""
        self.ending_at = 0.0
        """When its end was last sent, by the loop's clock."""
        self.ahead_s = 0.0
        """How long it waited for its seat."""
        self.waits_for_children = False
        self.waited_s = 0.0
        """How long it has only waited for other apps' jobs."""
        self.on_wait: Callable[[], None] = lambda: None
        """Called when it begins to wait for other apps' jobs, and when it goes on."""
        self._loop = asyncio.get_running_loop()
        self.claimed_at = self._loop.time()
        self._waits_since = 0.0
        self._lease_timer = self._loop.call_at(safe_until, self.stop, StopReason.NOT_RENEWED)
        self._run_is_over = False
        self._run_left_s = claim.run_timeout_s
        self._run_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    @property
    def names(self) -> dict[str, str | int]:
        """What log lines about this attempt carry."""
        return {"job_id": str(self.claim.job_id), "attempt": self.claim.attempt}

    @property
    def is_over(self) -> bool:
        """Whether it was asked to stop, or its run has ended by itself."""
        return self.stopped.is_set() or self._run_is_over

    def stop(self, reason: StopReason) -> None:
        """Ask the attempt to stop. The first reason counts, but a lost lease overrides all: nothing may be written."""
        if reason is StopReason.LEASE_LOST:
            self.reason = reason
            self.lease_lost.set()
        if reason in (StopReason.LEASE_LOST, StopReason.NOT_RENEWED):
            self.hurried.set()
        self.is_draining = self.is_draining or reason is StopReason.DRAIN
        self.reason = self.reason or reason
        self.stopped.set()

    def renew(self, safe_until: float) -> None:
        """A heartbeat has prolonged the lease. What was stopped stays stopped."""
        self._lease_timer.cancel()
        if not (self.hurried.is_set() or self._run_is_over):
            self._lease_timer = self._loop.call_at(safe_until, self.stop, StopReason.NOT_RENEWED)

    def start_clocks(self) -> None:
        """The endpoint's own time limits begin, or go on with what ``pause_clocks`` left of them."""
        if self._run_timer is not None or self._run_is_over:
            return
        self._run_timer = self._loop.call_later(self._run_left_s, self.stop, StopReason.RUN_TIMEOUT)
        self.progressed()

    def pause_clocks(self) -> None:
        """The attempt waits for ranks that are being started: that is not the endpoint's time."""
        if self._run_timer is None:
            return
        self._run_left_s = max(0.0, self._run_timer.when() - self._loop.time())
        self._stop_clocks()

    def wait(self, waits: bool) -> None:
        """It only waits for other apps' jobs from now on, or goes on: while it waits its silence is no stall."""
        if waits is self.waits_for_children:
            return
        self.waits_for_children = waits
        if waits:
            self._waits_since = self._loop.time()
        else:
            self.waited_s += self._loop.time() - self._waits_since
        self.progressed()
        self.on_wait()

    def progressed(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        if self.waits_for_children or self._run_is_over:
            return
        if self.claim.stall_timeout_s is not None and self._run_timer is not None:
            self._stall_timer = self._loop.call_later(self.claim.stall_timeout_s, self.stop, StopReason.STALL_TIMEOUT)

    def run_ended(self, *, has_result: bool) -> None:
        """What is left is storing, under the lease alone. A stop that came too late for a result is forgotten.

        Nothing runs any more that another node's attempt could meet, so the lease may run out in the meantime: should
        another have taken the job, Postgres refuses the result.
        """
        self.wait(False)
        self._run_is_over = True
        self._stop_clocks()
        self._lease_timer.cancel()
        if has_result and not self.lease_lost.is_set():
            self.reason = None
            self.stopped.clear()

    def end(self) -> None:
        """The job is finished, released or lost: nothing of this attempt may ring any more."""
        self.run_ended(has_result=False)

    def _stop_clocks(self) -> None:
        for timer in (self._run_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._run_timer = self._stall_timer = None


class Attempts:
    """The attempts of this node, all apps together."""

    def __init__(self) -> None:
        self._by_lease: dict[Lease, Attempt] = {}
        self._former: deque[Lease] = deque(maxlen=1000)  # many times what can end within the length of a lease

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._by_lease.values()))

    def __len__(self) -> int:
        return len(self._by_lease)

    def add(self, attempt: Attempt) -> None:
        self._by_lease[attempt.lease] = attempt

    def remove(self, attempt: Attempt) -> None:
        attempt.end()
        self._by_lease.pop(attempt.lease, None)
        self._former.append(attempt.lease)

    def has_begun(self, lease: Lease) -> bool:
        """Whether this node has worked under the lease, now or a while ago."""
        return lease in self._by_lease or lease in self._former

    def stop(self, leases: frozenset[Lease], reason: StopReason) -> None:
        for lease in leases:
            if lease in self._by_lease:
                self._by_lease[lease].stop(reason)

    def have_no_slots(self, app: str) -> None:
        """The app's claimed job waits for slots that are not left: another node may have some."""
        for attempt in self:
            if attempt.claim.app == app and attempt.claim.uses_gpus and not attempt.is_over:
                attempt.stop(StopReason.NO_SLOTS)

    def cancel(self, job_id: UUID) -> None:
        for attempt in self:
            if attempt.claim.job_id == job_id:
                attempt.stop(StopReason.CANCEL)


class InternalError(ExecutionError):
    """The node itself failed while it held the job."""

    code, title, retryable = "internal_error", "The node failed while it ran the job", True
    hint = "The node's log has the traceback."
