"""Relay: what happens to one job, in the order of its ids, for all streams of it in this process.

Its rows are read once (``api.relays`` does), its progress is taken from Redis once, and each is encoded once. A stream
has a feed, which is bounded: who does not read is not waited for, but falls behind, and reads for itself later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from uuid import UUID

from api.told import Told
from stoker.bus import KEEP_PROGRESS
from stoker.events import Event, EventId
from stoker.job_views import JobView

KEEP = 64
"""So many events wait for a stream before it falls behind."""


class JobFeed:
    """What one stream has not sent yet."""

    def __init__(self) -> None:
        self.is_behind = False
        """Something is missing here: read the rows past the last one sent, and the newest progress."""
        self.is_over = False
        """The job is gone: what waits here is the last of it."""
        self._told: deque[Told] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._told or self.is_behind or self.is_over)

    def tell(self, told: Told) -> None:
        """Add an event. One too many makes the stream fall behind: it gets what it needs when it reads again."""
        if self.is_behind:
            return
        if len(self._told) >= KEEP:
            self.fall_behind()
            return
        self._told.append(told)
        self.wake()

    def fall_behind(self) -> None:
        """What waits here is of no use."""
        self.is_behind = True
        self._told.clear()
        self.wake()

    def end(self) -> None:
        """Nothing more will come."""
        self.is_over = True
        self.wake()

    def take(self) -> list[Told]:
        """What came since the last call, in order."""
        told = list(self._told)
        self._told.clear()
        return told

    def wake(self) -> None:
        """End a ``wait``."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Until there is something to do, or for so long, or until somebody wakes it."""
        if not self.is_idle:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(timeout_s, self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None


class Relay:
    """Of one job. ``seen``: up to which seq it has told rows. ``on_due`` hears that it has something to read."""

    def __init__(self, job: JobView, on_due: Callable[[Relay], None]) -> None:
        self.job, self.seen = job, job.last_seq
        self.feeds: set[JobFeed] = set()
        self.has_gap = False
        """Nobody listened for a while: read the progress that Redis kept."""
        self._on_due = on_due
        self._last = EventId(job.last_seq, job.attempt)
        self._waiting: list[Event] = []

    @property
    def job_id(self) -> UUID:
        return self.job.id

    @property
    def last(self) -> EventId:
        """The last event that was told."""
        return self._last

    def look(self, seq: int | None = None) -> None:
        """There may be rows past ``seen``: up to ``seq``, where it is known."""
        if seq is None or seq > self.seen:
            self._on_due(self)

    def look_back(self) -> None:
        """Nobody listened for a while: there may be rows, and progress that was kept."""
        self.has_gap = True
        self._on_due(self)

    def end(self) -> None:
        """The job is gone."""
        for feed in self.feeds:
            feed.end()

    def offer(self, event: Event) -> None:
        """Live progress. It waits for its row, and for what was missed before it."""
        if event.id <= self._last:
            return
        if event.id.seq <= self.seen and not self.has_gap and not self._waiting:
            self._tell(Told(event, self.job))
            return
        self._wait_for_rows([event])
        self.look(event.id.seq)

    def fill_gap(self, missed: Iterable[Event]) -> None:
        """Add the progress that Redis kept; ``tell_rows`` is to follow."""
        self.has_gap = False
        self._wait_for_rows(missed)

    def tell_rows(self, rows: Iterable[Event]) -> None:
        """Tell rows and the progress that waited for them, each in its place; then all progress that need not wait."""
        for row in rows:
            if row.id.seq <= self.seen:
                continue
            self._tell_before(row.id)
            self.seen = row.id.seq
            self._tell(Told(row, self.job))
        if not self.has_gap:
            self._tell_before(EventId(self.seen + 1))

    def _wait_for_rows(self, progress: Iterable[Event]) -> None:
        by_id = {event.id: event for event in (*self._waiting, *progress)}
        self._waiting = [by_id[event_id] for event_id in sorted(by_id)[-KEEP_PROGRESS:]]

    def _tell_before(self, bound: EventId) -> None:
        while self._waiting and self._waiting[0].id < bound:
            event = self._waiting.pop(0)
            if event.id > self._last:
                self._tell(Told(event, self.job))

    def _tell(self, told: Told) -> None:
        self._last = told.event.id
        for feed in self.feeds:
            feed.tell(told)
