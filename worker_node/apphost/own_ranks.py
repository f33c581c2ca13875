"""OwnRanks: the ranks of an app whose own ``setup`` makes and starts its runners, as one written for fal does.

To ``service`` it is what ``AppRanks`` is: given a place, warmed up, stopped. Warming up is the app's ``setup``, which
is done again after the ranks had to leave, or could not be rebuilt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from stoker.app import App
from worker_node.apphost.crashes import leaves_ranks_useless
from worker_node.apphost.ranks import LAST_WORDS_S, Ran, peak_resident_bytes
from worker_node.distributed import DistributedRunner, NotRunning, RankLog, RunnerError

VISIBLE = "CUDA_VISIBLE_DEVICES"
RANK_LOGGER = "worker_node.distributed.rank"
"""Where runners say what their ranks log, also those that were made without a listener."""


class OwnRanks:
    """``environ`` is this process's: its runners' ranks see the GPUs that it says. ``on_log`` hears what they log."""

    def __init__(
        self,
        app: App,
        environ: MutableMapping[str, str],
        *,
        on_change: Callable[[str, list[int]], None],
        on_log: Callable[[RankLog], None],
    ) -> None:
        self._app, self._environ, self._told = app, environ, on_change
        self._all = environ.get(VISIBLE)
        self._starting: asyncio.Task[None] | None = None
        self._has_place = self._is_useless = False
        self._had = set(vars(app))
        logging.getLogger(RANK_LOGGER).addHandler(_Listener(on_log))

    def place(self, devices: Sequence[int] | None) -> None:
        """Say which of the GPUs that this process sees are the app's. Starts none."""
        self._has_place = True
        if devices is not None:
            known = [name for name in (self._all or "").split(",") if name]
            self._environ[VISIBLE] = ",".join(known[each] if known else str(each) for each in devices)
        elif self._all is not None:
            self._environ[VISIBLE] = self._all
        else:
            self._environ.pop(VISIBLE, None)

    async def warm_up(self) -> None:
        """Do the app's ``setup``; nothing where its ranks are there.

        Raises:
            NotRunning: they have no place. What ``setup`` raises is passed on.
        """
        if not self._has_place:
            raise NotRunning("the ranks have no place: their slots are another app's")
        if self._starting is None or (self._starting.done() and not self._is_warm()):
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def ready_for_call(self) -> Ran:
        """Warm up for a call, which will reach its runner by itself."""
        was_warm, began = self._is_warm(), time.monotonic()
        await self.warm_up()
        return Ran(None, 0.0 if was_warm else time.monotonic() - began, was_warm)

    def call_failed(self, error: BaseException) -> None:
        """Have the ranks made anew for the next call, if they would fail that as well."""
        self._is_useless = self._is_useless or (isinstance(error, RunnerError) and leaves_ranks_useless(error))

    async def run(self, payload: Mapping[str, Any], on_event: Any) -> Ran:  # noqa: ARG002 - as AppRanks has it
        """Such an app calls its runner itself."""
        raise NotRunning("this app has runners of its own: call self.runner.invoke")

    def stop(self, grace_s: float) -> Awaitable[None]:
        """Take their place from the ranks at once, and end them in order, within the grace."""
        starting, self._starting, self._has_place = self._starting, None, False
        self._told("none", [])
        return self._end(starting, grace_s)

    def peak_memory_bytes(self) -> int | None:
        """The most memory that the ranks have held on the host, added up; None where there are none."""
        peaks = [peak_resident_bytes(pid) for pid in self._pids()]
        return sum(peaks) if peaks else None

    async def _start(self) -> None:
        await self._end(None, LAST_WORDS_S)  # what an earlier one has left
        self._is_useless = False
        self._told("starting", [])
        try:
            await self._app.setup()
        except BaseException:
            await self._end(None, 0)
            self._told("none", [])
            raise
        self._told("warm", self._pids())

    async def _end(self, starting: asyncio.Task[None] | None, grace_s: float) -> None:
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        runners = self._runners()
        for name in set(vars(self._app)) - self._had:
            delattr(self._app, name)
        await asyncio.gather(*(runner.stop(grace_s) for runner in runners))

    def _runners(self) -> list[DistributedRunner]:
        return [value for value in vars(self._app).values() if isinstance(value, DistributedRunner)]

    def _is_warm(self) -> bool:
        runners = self._runners()
        is_done = self._starting is not None and self._starting.done() and self._starting.exception() is None
        return is_done and not self._is_useless and all(runner.is_alive() for runner in runners)

    def _pids(self) -> list[int]:
        return [rank.pid for runner in self._runners() for rank in runner.status().ranks]


class _Listener(logging.Handler):
    def __init__(self, on_log: Callable[[RankLog], None]) -> None:
        super().__init__()
        self._on_log = on_log

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (int(rank), str(message)):
                self._on_log(RankLog(rank, record.levelno, message))
