"""AppRanks: the ranks of one app, started at the first need and kept warm.

Owns the ``DistributedRunner``, which rebuilds them after a failure; one that gave up is started anew at the next call.
Ranks whose GPU or whose connection to each other has failed live on and would fail every call: they are replaced here.
Knows nothing of jobs: ``service`` places it, warms it up and stops it, ``served_call`` runs payloads on it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker_node.apphost.crashes import leaves_ranks_useless
from worker_node.distributed import (
    DistributedRunner,
    NotRunning,
    RankEvent,
    RankLog,
    RunnerError,
    RunnerState,
    RunnerStatus,
)

log = logging.getLogger("worker_node.apphost")

START_TIMEOUT_S = 1800.0
"""Loading weights counts, from a slow disk or a hub."""

NO_LIMIT_S = 10 * 365 * 86_400.0
"""The runner wants a limit; a call's own is its job's run_timeout, which the node watches over."""

LAST_WORDS_S = 1.0
"""For ranks that cannot work any more; a broken CUDA context may hang in its own teardown."""

_STATE = {RunnerState.STOPPED: "none"}


@dataclass(frozen=True)
class Ran:
    """What a call on the ranks gave. ``cold_start_s`` is 0 where they were there already."""

    value: Any
    cold_start_s: float
    was_warm: bool


class AppRanks:
    """The ranks of an app that has a worker: none before ``place`` has said where they may be.

    ``on_change`` hears each new state, with the ranks' process ids.
    """

    def __init__(
        self,
        worker: type | str,
        world_size: int,
        setup_args: Mapping[str, Any],
        *,
        on_change: Callable[[str, list[int]], None],
        on_log: Callable[[RankLog], None],
    ) -> None:
        self._worker, self._world_size, self._setup_args = worker, world_size, dict(setup_args)
        self._starting: asyncio.Task[None] | None = None
        self._told, self._on_log = on_change, on_log
        self._placed: DistributedRunner | None = None

    def place(self, devices: Sequence[int] | None) -> None:
        """Say where the ranks may be: on these of the GPUs that this process sees, or anywhere. Starts none."""
        runner = self._placed = DistributedRunner(
            self._worker,
            self._world_size,
            timeout=NO_LIMIT_S,
            devices=devices,
            on_log=self._on_log,
            on_change=lambda status: self._tell(runner, status),
        )

    async def warm_up(self) -> None:
        """Start the ranks; nothing where there are some.

        Raises:
            NotRunning: they have no place.
            RunnerError: as of ``DistributedRunner.start``.
        """
        if self._starting is None or self._starting.done():
            if self._runner.is_alive():
                return
            self._starting = asyncio.create_task(self._runner.start(START_TIMEOUT_S, **self._setup_args))
        # A job that is cancelled meanwhile leaves the ranks to the next one.
        await asyncio.shield(self._starting)

    async def ready_for_call(self) -> Ran:
        """Nothing: ``run`` warms up by itself, for a call that comes to it."""
        return Ran(None, 0.0, was_warm=True)

    def call_failed(self, error: BaseException) -> None:
        """Nothing: ``run`` has seen it."""

    async def run(self, payload: Mapping[str, Any], on_event: Callable[[RankEvent], Any]) -> Ran:
        """Call the ranks and hear their events. Raises as ``DistributedRunner.call`` does."""
        was_warm = self._runner.status().state in (RunnerState.WARM, RunnerState.BUSY)
        began = time.monotonic()
        await self.warm_up()
        cold_start_s = 0.0 if was_warm else time.monotonic() - began
        try:
            value = await self._runner.call(payload, timeout=NO_LIMIT_S, on_event=on_event)
        except RunnerError as error:
            if leaves_ranks_useless(error):
                self._starting = asyncio.create_task(self._replace())
                self._starting.add_done_callback(_say_if_failed)
            raise
        return Ran(value, cold_start_s, was_warm)

    def stop(self, grace_s: float) -> Awaitable[None]:
        """Take their place from the ranks at once, and end them in order, within the grace.

        When what it returns has been awaited, their processes are gone. New ones may have a place before that.
        """
        runner, self._placed = self._placed, None
        starting, self._starting = self._starting, None
        self._told("none", [])
        return self._end(runner, starting, grace_s)

    async def _end(self, runner: DistributedRunner | None, starting: asyncio.Task[None] | None, grace_s: float) -> None:
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])  # it ends what it had begun to start
        if runner is not None:
            await runner.stop(grace_s)

    def peak_memory_bytes(self) -> int | None:
        """The most memory that the ranks have held on the host, added up; None where there are none."""
        ranks = () if self._placed is None else self._placed.status().ranks
        peaks = [peak_resident_bytes(rank.pid) for rank in ranks]
        return sum(peaks) if peaks else None

    @property
    def _runner(self) -> DistributedRunner:
        if self._placed is None:
            raise NotRunning("the ranks have no place: their slots are another app's")
        return self._placed

    async def _replace(self) -> None:
        runner = self._runner
        await runner.stop(LAST_WORDS_S)
        await runner.start(START_TIMEOUT_S, **self._setup_args)

    def _tell(self, runner: DistributedRunner, status: RunnerStatus) -> None:
        if runner is self._placed:
            self._told(_STATE.get(status.state, status.state.value), [rank.pid for rank in status.ranks])


def _say_if_failed(starting: asyncio.Task[None]) -> None:
    if not starting.cancelled() and (error := starting.exception()) is not None:
        log.error("useless ranks could not be replaced, the next call tries again", exc_info=error)


def peak_resident_bytes(pid: int) -> int:
    """The most memory that a process has held; 0 once it has ended."""
    try:
        said = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:  # it has ended
        return 0
    _, _, after = said.partition(b"VmHWM:")
    return int(after.split(maxsplit=1)[0]) * 1024 if after else 0
