"""Slots: which app's runner holds which of a node's slots, who gives them up and who waits.

Pure: the caller brings the time. ``worker_node.placement`` carries out what is decided here; executors ask before they
claim. A slot is a GPU, or a rank on a machine without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

LINGER_S = 1.0
"""How long an app in its turn keeps its slots without a job. A caller that sends its next job when it has the answer to
the last is back sooner: else two such callers would have ranks started for every single job."""
NEVER = float("-inf")
NO_SLOTS: frozenset[int] = frozenset()


@dataclass
class Holding:
    """One app's part. ``keeps``: its runner is there without a job, too, wherever slots are free.

    ``held`` may have processes on them; ``promised`` are to be ``held`` as soon as others have left them.
    """

    app: str
    size: int
    keeps: bool = False
    keep_alive_s: float | None = None
    held: frozenset[int] = NO_SLOTS
    promised: frozenset[int] = NO_SLOTS
    has_job: bool = False
    """Of what is promised: a job is waiting for it, it is no mere question any more."""
    is_busy: bool = False
    was_busy: bool = False
    """When slots were set aside last: a job was at work, and what was looked for is its next one."""
    is_leaving: bool = False
    is_stuck: bool = False
    """Its ranks were to leave and have not: until they do, what it holds is not there for anybody."""
    is_warm: bool = False
    used_at: float = NEVER
    turn_began: float = NEVER
    left_at: float = NEVER
    waiting_since: float | None = None


@dataclass(frozen=True)
class Steps:
    """What to do now: end the ranks of some apps, give slots to others. ``again_at``: when to ask without a cause.

    ``give_back``: apps with a claimed job for which there are no slots after all.
    """

    stop: tuple[str, ...] = ()
    place: dict[str, tuple[int, ...]] = field(default_factory=dict)
    give_back: tuple[str, ...] = ()
    again_at: float | None = None


class Slots:
    """``yield_after_s``: how long a job may wait for slots that another app's jobs keep busy one after the other.

    A runner that has just come to its slots keeps them as long, however long others have waited: else two deep queues
    would change places at every job, and ranks would do nothing but start.
    """

    def __init__(self, count: int, yield_after_s: float) -> None:
        self.count, self._yield_after_s = count, yield_after_s
        self._holdings: dict[str, Holding] = {}

    def add(self, app: str, size: int, *, keeps: bool = False, keep_alive_s: float | None = None) -> None:
        """Make an app known. ``size`` is how many slots its runner takes, from 1 to ``count``."""
        self._holdings[app] = Holding(app, size, keeps, keep_alive_s)

    def __getitem__(self, app: str) -> Holding:
        return self._holdings[app]

    def __contains__(self, app: str) -> bool:
        return app in self._holdings

    def __iter__(self) -> Iterator[Holding]:
        return iter(self._holdings.values())

    # What executors ask and say.

    def could_take(self, app: str, now: float) -> bool:
        """Whether a job of ``app`` that needs its ranks may be claimed now."""
        return self._offer(self._holdings[app], now) is not None

    def take(self, app: str, now: float) -> bool:
        """Set slots aside for a job that is about to be claimed; nobody else gets them until it is known."""
        one = self._holdings[app]
        offer = self._offer(one, now)
        if offer is None:
            return False
        if not one.held:
            one.promised = offer
        one.was_busy, one.is_busy = one.is_busy, True
        return True

    def keep(self, app: str) -> None:
        """A job was claimed."""
        one = self._holdings[app]
        one.has_job, one.waiting_since = bool(one.promised), None

    def give_up(self, app: str) -> None:
        """There was nothing to claim. Where a job has just been served, that it is over is for ``ends`` to say."""
        one = self._holdings[app]
        one.is_busy, one.promised, one.waiting_since = one.was_busy, NO_SLOTS, None

    def ends(self, app: str, now: float) -> None:
        """Its last job has left the ranks, and there is no next; or it was stopped before it came to them."""
        one = self._holdings[app]
        one.promised, one.has_job, one.is_busy, one.used_at = NO_SLOTS, False, False, now

    def waits(self, app: str, since: float) -> None:
        """A job of the app has been waiting since then for slots; what it waited before the app left them is past.

        An app that holds slots waits for none: its next job would else stand before those that it has to yield to.
        """
        one = self._holdings[app]
        if not one.held:
            one.waiting_since = max(since, one.left_at)

    def waits_no_more(self, app: str) -> None:
        self._holdings[app].waiting_since = None

    def whose_turn(self, now: float) -> list[str]:
        """The apps with a waiting job that could be claimed now, who waits longest first."""
        waiting = sorted((one for one in self if one.waiting_since is not None), key=_by_wait)
        return [one.app for one in waiting if not one.is_busy and self._offer(one, now) is not None]

    # What the node carries out.

    def steps(self, now: float) -> Steps:
        """Decide, and take it as told: the same answer is not given twice."""
        give_back = tuple(one.app for one in self if one.has_job and not self._has_way_to_slots(one, now))
        stop = [one.app for one in self if one.held and not one.is_leaving and self._must_leave(one, now)]
        for app in stop:
            self._holdings[app].is_leaving = True
        place = {}
        for one in self:
            if one.promised and one.has_job and not any(one.promised & other.held for other in self):
                place[one.app] = self._seat(one, one.promised, now)
        for one in self:
            if one.keeps and not one.held and not one.promised:
                free = [slot for slot in self._for_all(one, now) if not any(slot in other.held for other in self)]
                if len(free) >= one.size:
                    place[one.app] = self._seat(one, frozenset(free[: one.size]), now)
        ends = [one.used_at + one.keep_alive_s for one in self if one.keep_alive_s is not None and self._idles(one)]
        ends += [self._lingers_until(one) for one in self if self._lingers(one, now)]
        return Steps(tuple(stop), place, give_back, min(ends, default=None))

    def is_warm(self, app: str, now: float) -> None:
        """Its ranks are there: from now on its turn counts."""
        one = self._holdings[app]
        if one.held and not one.is_warm:
            one.is_warm, one.turn_began = True, now

    def is_stuck(self, app: str) -> None:
        """Its ranks have not ended as they were told to."""
        self._holdings[app].is_stuck = True

    def has_left(self, app: str, now: float) -> None:
        """Its ranks have ended, all of them: the slots are free."""
        one = self._holdings[app]
        one.held, one.is_leaving, one.is_stuck, one.is_warm, one.left_at = NO_SLOTS, False, False, False, now
        if one.waiting_since is not None:
            one.waiting_since = now

    def is_wanted(self, app: str) -> bool:
        """Whether a job of another app is to run on what this one holds."""
        return any(other.has_job and other.promised & self._holdings[app].held for other in self)

    # Below: the decisions.

    @property
    def _stuck(self) -> set[int]:
        return {slot for one in self if one.is_stuck for slot in one.held}

    def _has_way_to_slots(self, one: Holding, now: float) -> bool:
        """Where some of what a job was promised is not to be had, others may be; else it keeps none."""
        if not one.promised & self._stuck:
            return True
        one.promised = NO_SLOTS
        one.promised = self._offer(one, now) or NO_SLOTS
        one.has_job = bool(one.promised)
        return one.has_job

    def _seat(self, one: Holding, slots: frozenset[int], now: float) -> tuple[int, ...]:
        one.held, one.promised, one.has_job, one.is_warm, one.turn_began = slots, NO_SLOTS, False, False, now
        if not one.is_busy:
            one.used_at = now
        return tuple(sorted(slots))

    def _must_leave(self, one: Holding, now: float) -> bool:
        if self.is_wanted(one.app):
            return True
        return self._idles(one) and one.keep_alive_s is not None and now >= one.used_at + one.keep_alive_s

    def _idles(self, one: Holding) -> bool:
        """Whether its ranks are there for no job and for no ``min_runners``."""
        return bool(one.held) and not (one.is_busy or one.is_leaving or one.keeps)

    def _lingers(self, one: Holding, now: float) -> bool:
        """Whether its ranks are without a job for a moment only: nobody else gets their slots."""
        return bool(one.held) and not (one.is_busy or one.is_leaving) and now < self._lingers_until(one)

    def _lingers_until(self, one: Holding) -> float:
        return min(one.used_at + LINGER_S, one.turn_began + self._yield_after_s)

    def _offer(self, one: Holding, now: float) -> frozenset[int] | None:
        """The slots that a job of this app would run on if it were claimed now; None: it has to wait."""
        if one.promised or one.is_leaving:
            return None
        if one.held:
            if any(one.held & other.promised for other in self):
                return None
            is_in_turn = now < one.turn_began + self._yield_after_s
            return one.held if is_in_turn or not one.held & self._spoken_for(one, now) else None
        slots = self._for_all(one, now)
        return frozenset(slots[: one.size]) if len(slots) >= one.size else None

    def _for_all(self, one: Holding, now: float) -> list[int]:
        """Slots that nobody works on or is promised, in the order in which they are to be taken; none spoken for."""
        spoken_for = self._spoken_for(one, now)
        return [slot for slot in self._in_order(now, with_busy=False) if slot not in spoken_for]

    def _spoken_for(self, one: Holding, now: float) -> set[int]:
        """What those who have waited past the bound, and longer than this one, are to have."""
        spoken_for: set[int] = set()
        for other in sorted((other for other in self if other.waiting_since is not None), key=_by_wait):
            if other is one or other.waiting_since is None or now < other.waiting_since + self._yield_after_s:
                break
            if not other.held and not other.promised and other.size <= self.count - len(self._stuck):
                left = [slot for slot in self._in_order(now, with_busy=True) if slot not in spoken_for]
                spoken_for.update(left[: other.size])
        return spoken_for

    def _in_order(self, now: float, *, with_busy: bool) -> list[int]:
        """Free slots, then those of idle runners, least recently used first, then of busy ones, longest turn first.

        Who lingers counts as busy; what ranks hold that do not end is not among them.
        """
        promised = {slot for one in self for slot in one.promised}
        held = {slot for one in self for slot in one.held}
        at_work = {one.app for one in self if one.is_busy or self._lingers(one, now)}
        there = [one for one in self if one.held and not one.is_stuck]
        idle = sorted((one for one in there if one.app not in at_work), key=lambda one: one.used_at)
        busy = sorted((one for one in there if one.app in at_work), key=lambda one: one.turn_began)
        slots = [slot for slot in range(self.count) if slot not in held]
        for one in [*idle, *busy] if with_busy else idle:
            slots += sorted(one.held)
        return [slot for slot in slots if slot not in promised]


def _by_wait(one: Holding) -> tuple[float, str]:
    return (one.waiting_since if one.waiting_since is not None else NEVER, one.app)
