"""One call as the parent sees it: events and reports of all ranks, until the caller has its answer and they are free.

Two moments are kept apart. ``outcome`` is what the caller gets: it may come early (an error, a death, a timeout, a
cancel). ``settled`` comes when every rank has reported, and says whether they are in step, so that the next call may
use them. Acts on nothing: the runner sends, kills and rebuilds.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Sequence

from worker_node.distributed import wire
from worker_node.distributed.batch import Event, Sort
from worker_node.distributed.errors import (
    CallCancelled,
    CallTimeout,
    RankError,
    RankFailed,
    RunnerError,
    SerializationFailed,
)
from worker_node.distributed.events import RankEvent
from worker_node.distributed.media import Frame
from worker_node.distributed.messages import REPORTS, Kind, Message

# A rank that dies makes collectives fail on others, and their reports may come first: the cause is waited for so long.
_CAUSE_S = 0.5


class Call:
    """Collects what the ranks say about one call."""

    def __init__(self, number: int, world_size: int, *, on_outcome: Callable[[Call], None]) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.outcome: asyncio.Future[Sequence[Frame]] = loop.create_future()
        self.settled: asyncio.Future[bool] = loop.create_future()
        self.freed: asyncio.Future[None] = loop.create_future()
        self.failures: list[RankError] = []
        self.busy = set(range(world_size))
        self.sent = self._is_over = False
        self._late: asyncio.TimerHandle | None = None
        self._loop, self._on_outcome = loop, on_outcome
        self._events: collections.deque[Event] = collections.deque()
        self._wake: asyncio.Future[None] | None = None
        self._result: Sequence[Frame] = ()
        self._steps: list[dict[str, int]] = []
        self._failed: RunnerError | None = None
        self._cancelled_ranks = 0

    def limit(self, deadline: float, timeout_s: float) -> None:
        """End it with a CallTimeout at ``deadline``, in the loop's time."""
        self._late = self._loop.call_at(deadline, lambda: self.interrupt(CallTimeout(timeout_s=timeout_s)))

    def no_limit(self) -> None:
        """Forget the limit."""
        if self._late is not None:
            self._late.cancel()

    async def next_event(self, silence_s: float | None = None) -> RankEvent | None:
        """Wait for the next event; None when there are no more and ``outcome`` is there. A silence that is longer than
        ``silence_s`` ends the call.
        """
        if silence_s is None:
            return await self._next_event()
        error = CallTimeout(timeout_s=silence_s, what="nothing came from the ranks")
        late = self._loop.call_later(silence_s, self.interrupt, error)
        try:
            return await self._next_event()
        finally:
            late.cancel()

    async def _next_event(self) -> RankEvent | None:
        while not self._events:
            if self.outcome.done():
                return None
            self._wake = self._loop.create_future()
            await self._wake
        event = self._events.popleft()
        if not self._is_over:
            event.taken()
        item = event.item
        # Decoded here, so that what cannot be decoded is an error of the listener's call and of nothing else.
        return RankEvent(event.rank, wire.decode(item.value), item.image_format, item.as_text, item.sort is Sort.ERROR)

    def add(self, event: Event) -> None:
        """Take in an event of this call."""
        if self.outcome.done():
            event.taken()
            return
        self._events.append(event)
        self._rouse()

    def drop_events(self) -> None:
        """Throw away what nobody will read, so that its rank need not wait for it."""
        self._give_room()
        self._events.clear()

    def receive(self, message: Message) -> None:
        """Take in a rank's report."""
        if message.kind in REPORTS and message.rank in self.busy:
            self._take_report(message)

    def rank_died(self, error: RankError) -> None:
        """Take in that a rank is gone: the others cannot be in step any more."""
        self.failures.append(error)
        self.conclude(error)
        if not self.settled.done():
            self.settled.set_result(False)

    def interrupt(self, error: RunnerError) -> None:
        """End the caller's wait with an error, and the delivery of events that already came."""
        if not self.outcome.done():
            self.drop_events()
            self.conclude(error)

    def conclude(self, error: RunnerError) -> None:
        """End the caller's wait with an error, unless it has ended."""
        if self.outcome.done():
            return
        self.outcome.set_exception(error)
        # Its caller may be gone; an error that nobody fetches is no fault here.
        self.outcome.exception()
        self._ended()

    def _take_report(self, message: Message) -> None:
        self.busy.discard(message.rank)
        self._steps.append(message.fields["steps"])
        if message.kind is Kind.DONE and message.rank == 0:
            self._result = message.value
        elif message.kind is Kind.CANCELLED:
            self._cancelled_ranks += 1
        elif message.kind is Kind.FAILED:
            self._take_failure(message)
        if not self.busy:
            self._all_reported()

    def _take_failure(self, message: Message) -> None:
        error = _error_of(message)
        if isinstance(error, RankError):
            self.failures.append(error)
        if self._failed is None:
            self._failed = error
            if self.busy:
                self._loop.call_later(_CAUSE_S, self.conclude, error)

    def _all_reported(self) -> None:
        interrupted = self.outcome.done() or self._failed is not None or self._cancelled_ranks > 0
        if not self.settled.done():
            # After a clean end counts may differ lawfully: sends and receives between some ranks count as well.
            self.settled.set_result(not interrupted or in_step(self._steps))
        if isinstance(self._failed, RankFailed):
            self._failed.others = tuple(other for other in self.failures if other is not self._failed)
        if self._failed is not None:
            self.conclude(self._failed)
        elif self._cancelled_ranks:
            self.conclude(CallCancelled("the worker stopped the call"))
        elif not self.outcome.done():
            self.outcome.set_result(self._result)
            self._ended()

    def _give_room(self) -> None:
        """Have what waits here no longer count: the ranks are another call's soon, whoever reads this slowly."""
        if not self._is_over:
            self._is_over = True
            for event in self._events:
                event.taken()

    def _ended(self) -> None:
        self._give_room()
        self._rouse()
        self._on_outcome(self)

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def in_step(steps: Sequence[dict[str, int]]) -> bool:
    """Tell whether all ranks entered the same number of collectives of each group that they share."""
    seen: dict[str, int] = {}
    return all(seen.setdefault(group, count) == count for each in steps for group, count in each.items())


def _error_of(message: Message) -> RunnerError:
    fields = message.fields
    if "path" in fields:
        return SerializationFailed(fields["reason"], path=fields["path"])
    return RankFailed(
        rank=message.rank, type_name=fields["type_name"], message=fields["message"], traceback=fields["traceback"]
    )
