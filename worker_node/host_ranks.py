"""HostRanks: the ranks of an app as its supervisor knows them. Where they may be, whether they come by themselves.

What it wants is sent to the app's process, and again to the one that replaces it. It starts and ends no process, and
decides nothing about slots: ``worker_node.placement`` does. ``worker_node.host`` holds one for its app.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import get_args

from stoker import log
from stoker.errors import StokerError, WorkerCrashed
from worker_node.apphost import protocol
from worker_node.apphost.protocol import Message
from worker_node.backoff import pause_before
from worker_node.host_values import RunnerState

VACATE_GRACE_S = 5.0
"""For the teardown of ranks whose slots another app waits for."""
VACATE_S = 10.0
"""How long an app's process may take in all until its ranks are gone; then they are killed over its head."""

logger = log.get(__name__)


class HostRanks:
    """``send`` reaches the app's process, where there is one. ``name`` is for log lines."""

    def __init__(self, name: str, send: Callable[[Message], None]) -> None:
        self._name, self._send = name, send
        self.is_placed = self._is_up = False
        self._devices: list[int] | None = None
        self._wants_warm = self._is_broken = False
        self._failures = 0
        self._warming: list[asyncio.Future[None]] = []
        self._leaving: asyncio.Future[None] | None = None
        self._unanswered = 0

    def place(self, devices: Sequence[int] | None) -> None:
        """Let them be on these devices; None: anywhere."""
        self.is_placed, self._devices = True, None if devices is None else list(devices)
        self._send(protocol.Place(self._devices))

    def warm_up(self) -> asyncio.Future[None]:
        """Start them, and again by themselves whenever the process was replaced. Resolves when they are there."""
        self._wants_warm = True
        warmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._warming.append(warmed)
        self._send(protocol.WarmUp())
        return warmed

    def stay_warm(self) -> None:
        """The same, of a process that may not be ready yet, for nobody who waits."""
        self._wants_warm = True
        self._send(protocol.WarmUp())

    async def vacate(self) -> bool:
        """End them and let them be nowhere. True: they are gone, by the process's own word or with it.

        False: it has not said so, and may do it yet.
        """
        self.is_placed = self._wants_warm = self._is_broken = False
        self._tell_waiting(
            WorkerCrashed("the ranks were ended while they started", hint="Another app needed the slots.")
        )
        if not self._is_up:
            return True
        leaving = self._leaving = asyncio.get_running_loop().create_future()
        self._send(protocol.Vacate(VACATE_GRACE_S))
        self._unanswered += 1
        await asyncio.wait([leaving], timeout=VACATE_S)
        if not leaving.done():
            logger.warning("ranks_do_not_end", app=self._name, then="they are killed")
        return leaving.done()

    def came_up(self) -> None:
        """A new process was started: tell it what the last one knew."""
        self._is_up = True
        if self.is_placed:
            self._send(protocol.Place(self._devices))
            if self._wants_warm:
                self._send(protocol.WarmUp())

    def went_down(self, error: StokerError) -> None:
        """The process has ended, and the ranks with it."""
        self._is_up = self._is_broken = False
        self._tell_waiting(error)
        self._unanswered = 0
        self.vacated()

    def vacated(self) -> None:
        """They are gone; or, where the process was too slow, some that it had before these."""
        self._unanswered = max(0, self._unanswered - 1)
        if self._unanswered == 0 and self._leaving is not None and not self._leaving.done():
            self._leaving.set_result(None)

    def changed(self, state: str) -> RunnerState:
        """Take in a new state, and give it as it is shown. Of ranks that have lost their place nothing is."""
        if not self.is_placed:
            return "none"
        if state in ("broken", "warm"):
            self._is_broken = state == "broken"
        if state == "broken":
            self._warm_up_later()
        shown = "broken" if state == "none" and self._is_broken else state
        return next(name for name in get_args(RunnerState) if name == shown)

    def warmed_up(self, error: StokerError | None) -> None:
        """The answer to a wish that they be warm."""
        if error is None:
            self._failures = 0
        was_awaited = self._tell_waiting(error)
        if error is not None and not was_awaited and self.is_placed:
            logger.error("ranks_could_not_be_started", app=self._name, problem=str(error), hint=error.hint)
            self._warm_up_later()

    def _tell_waiting(self, error: StokerError | None) -> bool:
        waiting, self._warming = self._warming, []
        for warmed in waiting:
            if not warmed.done():
                warmed.set_result(None) if error is None else warmed.set_exception(error)
        return bool(waiting)

    def _warm_up_later(self) -> None:
        """Try again by ourselves, so that a cause that has gone needs no restart of the node."""
        self._failures += 1
        asyncio.get_running_loop().call_later(pause_before(self._failures + 2), self._warm_up_again)

    def _warm_up_again(self) -> None:
        if self.is_placed:
            self._send(protocol.WarmUp())
