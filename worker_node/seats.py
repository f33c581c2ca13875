"""Seats: what jobs of one app occupy on this node, and which of them could take a job now.

The app's ranks are one seat, and a few more take the calls that need no GPU, of which one that waits for another app's
job is at no work. It asks the app's host, its slots and its
quarantines, and claims nothing: the executor does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stoker import log
from stoker.apps import AppVersion
from stoker.children import MAX_DEPTH
from stoker.errors import GpuFailed
from stoker.jobs import Claim, Failed, Outcome, Succeeded
from stoker.retries import EXCUSED
from worker_node.host import AppHost
from worker_node.placement import Placement
from worker_node.quarantine import Quarantine

KINDS = (True, False)
MORE_WAIT = 50
"""How many more calls may wait with each call that they are deeper, at least: more than can be at work when the bound
is met, so that whoever holds the bound up is deep enough to be sure of an end."""

logger = log.get(__name__)


@dataclass
class Seat:
    """``storing``: the outputs of its last job are still on their way. ``waits``: its job waits for another app's."""

    uses_gpus: bool
    is_free: bool = True
    waits: bool = False
    storing: asyncio.Task[None] | None = None

    @property
    def is_storing(self) -> bool:
        return self.storing is not None and not self.storing.done()


class Seats:
    """Those of one app. ``gpus`` is the quarantine of the node's GPUs; ``on_rest`` hears the app's own ones begin."""

    def __init__(
        self,
        version: AppVersion,
        host: AppHost,
        placement: Placement,
        gpus: Quarantine,
        on_rest: Callable[[float], None],
        *,
        most_waiting: int,
    ) -> None:
        self._app, self._host, self._placement, self._gpus = version.app, host, placement, gpus
        kinds = {endpoint.uses_gpus for endpoint in version.manifest.endpoints}
        self._calls = host.loading.max_multiplexing
        counts = {True: 1, False: self._calls}
        self._all = [Seat(uses_gpus=kind) for kind in KINDS if kind in kinds for _ in range(counts[kind])]
        self._quarantines = {kind: Quarantine(on_begin=on_rest) for kind in kinds}
        self._most_waiting, self._more_wait = most_waiting, max(MORE_WAIT, self._calls + 1)
        self.is_draining = False

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._all)

    @property
    def free(self) -> list[Seat]:
        """A free seat of each kind that has one. Those of a kind are alike."""
        found = (next((seat for seat in self._all if seat.is_free and seat.uses_gpus is kind), None) for kind in KINDS)
        return [seat for seat in found if seat is not None]

    def can_take(self, seat: Seat) -> bool:
        """Whether the seat's next job may be claimed now."""
        return self.is_ready(seat) and (not seat.uses_gpus or self._placement.could_take(self._app))

    def can_take_ahead(self, seat: Seat) -> bool:
        """Whether the job after the one that the seat serves may be claimed now."""
        if self.is_draining or self._host.serves_one_at_a_time or self._rests_for_s(seat.uses_gpus) is not None:
            return False
        if self._quarantines[seat.uses_gpus].is_on_trial or (seat.uses_gpus and self._gpus.is_on_trial):
            return False
        return not seat.uses_gpus or self._placement.could_take(self._app)

    @property
    def lack_slots(self) -> bool:
        """Whether other apps' ranks are all that keeps a job of this one from being claimed."""
        return any(
            seat.uses_gpus and seat.is_free and self.is_ready(seat) and not self._placement.could_take(self._app)
            for seat in self._all
        )

    @property
    def lack_more_than_slots(self) -> bool:
        """Whether no job could be claimed for the app's ranks although they have none, whoever has the slots."""
        return any(seat.uses_gpus and seat.is_free and not self.is_ready(seat) for seat in self._all)

    def is_ready(self, seat: Seat) -> bool:
        """Whether the seat's next job may be claimed as soon as there are slots for it."""
        busy = [other for other in self._all if not (other.is_free or other.waits or other is seat)]
        if not seat.uses_gpus and sum(not other.uses_gpus for other in busy) >= self._calls:
            return False  # those that waited have come back
        if busy and self._host.serves_one_at_a_time:
            return False  # what was claimed a moment ago may not have reached the host yet
        if self._quarantines[seat.uses_gpus].is_on_trial and any(one.uses_gpus is seat.uses_gpus for one in busy):
            return False
        if seat.uses_gpus and self._gpus.is_on_trial and self._placement.others_work(self._app):
            return False
        if self.is_draining or self._rests_for_s(seat.uses_gpus) is not None:
            return False
        return self._host.can_start(seat.uses_gpus)

    def least_depth(self, *, uses_gpus: bool) -> int:
        """How many calls below the first job the next one has to be, at least.

        Each call that waits is a task and a lease, so there is a bound. Where it is met only what others may wait for
        is claimed: with the next bound only what is deeper, and what is deepest waits for nobody: all come to an end.
        """
        too_many = sum(seat.waits for seat in self._all) - self._most_waiting
        return 0 if uses_gpus or too_many < 0 else min(1 + too_many // self._more_wait, MAX_DEPTH)

    @property
    def rest_for_s(self) -> float | None:
        """How much longer jobs of some kind are not claimed, because too many have crashed."""
        rests = [self._rests_for_s(kind) for kind in self._quarantines]
        return max((rest for rest in rests if rest is not None), default=None)

    def wait(self, seat: Seat, *, waits: bool) -> None:
        """Another job may be claimed in the place of one that waits: it may be the very job that is waited for.

        That is no matter of one that holds GPUs, in whose place none could run.
        """
        if seat.uses_gpus:
            return
        seat.waits = waits
        if seat.waits and not any(other.is_free for other in self._all if not other.uses_gpus):
            self._all.append(Seat(uses_gpus=False))

    def note(self, claim: Claim, outcome: Outcome) -> None:
        """How a job has ended here."""
        concerned = [self._quarantines[claim.uses_gpus], *([self._gpus] if claim.uses_gpus else [])]
        if isinstance(outcome, Succeeded):
            for quarantine in concerned:
                quarantine.served()
        elif isinstance(outcome, Failed) and outcome.error.crash and outcome.error.code not in EXCUSED:
            now = time.monotonic()
            concerned[0].crashed(self._app, claim.job_id, now)
            if outcome.error.code == GpuFailed.code:
                self._gpus.crashed(self._app, claim.job_id, now)

    def _rests_for_s(self, uses_gpus: bool) -> float | None:
        now = time.monotonic()
        rests = [self._quarantines[uses_gpus].left_s(now), self._gpus.left_s(now) if uses_gpus else None]
        return max((rest for rest in rests if rest is not None), default=None)
