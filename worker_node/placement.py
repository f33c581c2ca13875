"""Placement: carries out on app hosts what ``worker_node.slots`` decides, and tells executors what they may claim.

It ends ranks, waits until their processes are gone, and gives their slots to the next app. What is decided, and when,
is ``slots``'s; whether there is a job is ``stoker.jobs``'s. The node has one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from stoker import log
from worker_node.backoff import pause_before
from worker_node.host import AppHost
from worker_node.slots import Slots

logger = log.get(__name__)


class Placement:
    """All methods belong on the node's loop.

    ``on_change`` hears the apps whose ``could_take`` has changed, ``on_eviction`` those that make room for another, and
    ``on_no_slots`` those whose claimed job was to have slots that are not left.
    Apps without ranks are none of its business: it says yes to all that they ask.
    """

    def __init__(
        self,
        slots: Slots,
        hosts: Mapping[str, AppHost],
        *,
        are_gpus: bool,
        on_change: Callable[[str], None],
        on_eviction: Callable[[str], None],
        on_no_slots: Callable[[str], None],
    ) -> None:
        self._slots, self._hosts, self._are_gpus = slots, hosts, are_gpus
        self._on_change, self._on_eviction, self._on_no_slots = on_change, on_eviction, on_no_slots
        self._loop = asyncio.get_running_loop()
        self._seated = {one.app: asyncio.Event() for one in slots}
        self._could_take = {one.app: False for one in slots}
        self._used_at: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_ending = asyncio.Event()
        self.stirred = asyncio.Event()
        """Set when somebody's turn may have come."""

    def could_take(self, app: str) -> bool:
        """Whether a job of the app that needs its ranks may be claimed now."""
        return app not in self._slots or self._slots.could_take(app, self._loop.time())

    def others_work(self, app: str) -> bool:
        """Whether a job of another app is at work on its slots, or about to be claimed for some."""
        return any(one.is_busy for one in self._slots if one.app != app)

    def take(self, app: str) -> bool:
        """Set slots aside for a job that is about to be claimed; ``keep`` or ``give_up`` follows."""
        return app not in self._slots or self._slots.take(app, self._loop.time())

    def keep(self, app: str) -> None:
        """A job was claimed: it is on its way to its slots."""
        if app in self._slots:
            self._slots.keep(app)
            self._carry_out()

    def give_up(self, app: str) -> None:
        """There was none."""
        if app in self._slots:
            self._slots.give_up(app)
            self._carry_out()

    def ends(self, app: str) -> None:
        """The last job has left the ranks, and there is no next."""
        if app in self._slots:
            self._used_at[app] = self._loop.time()
            self._slots.ends(app, self._used_at[app])
            self._carry_out()

    def waits(self, app: str, for_s: float | None) -> None:
        """What is known of the app's jobs that wait for slots: how long the oldest has waited; None: there is none."""
        if for_s is None:
            self._slots.waits_no_more(app)
        else:
            self._slots.waits(app, self._loop.time() - for_s)
        self._carry_out()

    def may_wait(self, app: str) -> None:
        """There may be a job that could not be asked for just now."""
        if app in self._slots and self._slots[app].waiting_since is None:
            self.waits(app, 0.0)

    def whose_turn(self) -> list[str]:
        """The apps whose waiting jobs could be claimed now, in order."""
        return self._slots.whose_turn(self._loop.time())

    def is_seated(self, app: str) -> bool:
        """Whether the app's ranks have their place."""
        return app not in self._seated or self._seated[app].is_set()

    async def seated(self, app: str) -> None:
        """Wait until they have."""
        if app in self._seated:
            await self._seated[app].wait()

    def slots_of(self, app: str) -> list[int]:
        """The numbers of those that the app holds."""
        return sorted(self._slots[app].held) if app in self._slots else []

    def is_stuck(self, app: str) -> bool:
        """Whether its ranks were to end and are still there: nobody else gets their slots."""
        return app in self._slots and self._slots[app].is_stuck

    def used_ago_s(self, app: str) -> float | None:
        """How long its ranks have been idle; None where they were never busy."""
        if app not in self._slots:
            return None
        if self._slots[app].is_busy:
            return 0.0
        used_at = self._used_at.get(app)
        return None if used_at is None else self._loop.time() - used_at

    def host_changed(self, app: str) -> None:
        """The app's host has a new status."""
        if app in self._slots and self._hosts[app].status.runner in ("warm", "busy"):
            self._slots.is_warm(app, self._loop.time())
        self._tell()

    def begin(self) -> None:
        """Start the ranks that are to be there without a job."""
        self._carry_out()

    def drain(self) -> None:
        """From now on no ranks are started or ended but for jobs that were claimed."""
        for one in self._slots:
            one.keeps, one.keep_alive_s = False, None
        self._carry_out()

    async def settle(self) -> None:
        """Wait for ranks that are on their way out, but not for those that do not go."""
        self._is_ending.set()
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _carry_out(self) -> None:
        steps = self._slots.steps(self._loop.time())
        for app in steps.stop:
            self._seated[app].clear()
            task = self._loop.create_task(self._end_ranks(app), name=f"{app} leaves its slots")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for app in steps.give_back:
            self._on_no_slots(app)
        for app, numbers in steps.place.items():
            logger.info("ranks_placed", app=app, slots=list(numbers))
            self._hosts[app].place(numbers if self._are_gpus else None, stay_warm=self._slots[app].keeps)
            self._seated[app].set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if steps.again_at is not None:
            self._timer = self._loop.call_at(steps.again_at, self._carry_out)
        self._tell()

    async def _end_ranks(self, app: str) -> None:
        is_evicted = self._slots.is_wanted(app)
        logger.info("ranks_ended", app=app, slots=self.slots_of(app), reason="evicted" if is_evicted else "keep_alive")
        if is_evicted:
            self._on_eviction(app)
        failures = 0
        while not await self._have_ended(app):  # two runners on one GPU would both run out of memory
            failures += 1
            pause_s = pause_before(failures + 1)
            tells = {"slots": self.slots_of(app), "tried_again_in_s": pause_s}
            logger.error("slots_are_not_left", app=app, next="nobody else gets them until the ranks are gone", **tells)
            self._slots.is_stuck(app)
            self._on_change(app)
            self._carry_out()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._is_ending.wait()
                    return
        self._slots.has_left(app, self._loop.time())
        self._carry_out()
        self._on_change(app)

    async def _have_ended(self, app: str) -> bool:
        try:
            await self._hosts[app].vacate()
        except Exception:
            logger.exception("ranks_not_ended", app=app)
            return False
        return True

    def _tell(self) -> None:
        self.stirred.set()
        now = self._loop.time()
        for app, before in self._could_take.items():
            self._could_take[app] = could_take = self._slots.could_take(app, now)
            if could_take is not before:
                self._on_change(app)
