"""Warmth: a pool that is there when a call needs it, rebuilt after it was lost.

Decides when to try again and when to give up; why a pool is given up is the runner's decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from worker_node.distributed.errors import NotRunning, PoolBroken, RankDied, RunnerError, SpawnFailed
from worker_node.distributed.events import RunnerState
from worker_node.distributed.launch import Launch
from worker_node.distributed.pool import Listener, Pool
from worker_node.distributed.spare import Spare
from worker_node.distributed.threads import Threads

_log = logging.getLogger("worker_node.distributed")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0


def pause_before(misfortunes: int) -> float:
    """Seconds to wait before a rebuild, after so many misfortunes in a row: none after the first, then doubling."""
    return 0.0 if misfortunes <= 1 else min(_FIRST_PAUSE_S * 2 ** (misfortunes - 2), _LONGEST_PAUSE_S)


class Warmth:
    """Holds the current pool of a runner."""

    def __init__(self, listener: Listener, rebuild_attempts: int, on_change: Callable[[], None]) -> None:
        self._state, self._on_change = RunnerState.STOPPED, on_change
        self.restarts = 0
        self.pool: Pool | None = None
        self._lost: Pool | None = None
        self._spare = Spare()
        self._listener, self._rebuild_attempts = listener, rebuild_attempts
        self._launch: Launch | None = None
        self._timeout_s = 0.0
        self._misfortunes = self._failures = 0
        self._reasons: list[RunnerError] = []
        self._ready: asyncio.Future[Pool] | None = None
        self._rebuilding: asyncio.Task[None] | None = None
        self._threads: Threads | None = None

    @property
    def state(self) -> RunnerState:
        """What the pool is doing; ``on_change`` hears each change."""
        return self._state

    @state.setter
    def state(self, state: RunnerState) -> None:
        has_changed, self._state = state is not self._state, state
        if has_changed:
            self._on_change()

    async def start(self, launch: Launch, timeout_s: float) -> None:
        """Make the first pool; on failure nothing is left."""
        self._launch, self._timeout_s = launch, timeout_s
        self._misfortunes, self._failures, self._reasons = 0, 0, []
        self.state = RunnerState.STARTING
        self._threads = Threads()
        mine = self._ready = asyncio.get_running_loop().create_future()
        try:
            await self._make()
        except BaseException:
            if self._ready is mine:
                self._forget()
            raise

    async def pool_unless(self, over: asyncio.Future[Any]) -> Pool | None:
        """Wait for a pool that can serve; None where ``over`` was first.

        Raises:
            PoolBroken: rebuilding was given up.
            NotRunning: there is none and none is being made.
        """
        while not over.done():
            if self.state is RunnerState.WARM:
                return self.pool
            warming = asyncio.ensure_future(self._warm_pool())
            try:
                either: list[asyncio.Future[Any]] = [warming, over]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if warming.done() and not over.done():
                    warming.result()
            finally:
                warming.cancel()
        return None

    def rebuild(self, pool: Pool, cause: RunnerError, *, counts: bool) -> None:
        """Kill ``pool`` and make another in the background. ``counts``: it was lost with no call to blame."""
        if pool is not self.pool or self.state is not RunnerState.WARM:
            return
        pool.kill()
        self._lost = pool
        self.state = RunnerState.REBUILDING
        self._ready = asyncio.get_running_loop().create_future()
        if isinstance(cause, RankDied):
            self._misfortunes += 1
        if counts:
            # The first is a misfortune. Ranks that die again before they served anything are a failure to rebuild.
            self._failures += bool(self._reasons)
            self._reasons.append(cause)
        _log.warning("rebuilding the ranks: %s", cause)
        self._rebuilding = asyncio.create_task(self._rebuild(pool))

    def prepare(self, pool: Pool) -> None:
        """Begin what would replace ``pool``, which may have to go; ``keep`` where it has not."""
        launch, threads = self._launch, self._threads
        if pool is not self.pool or self.state is not RunnerState.WARM or launch is None or threads is None:
            return
        if launch.master_port is None:  # two generations cannot listen on one port
            self._spare.begin(lambda: Pool(launch, self._listener, threads))

    def keep(self) -> None:
        """The pool serves on."""
        self._spare.drop()

    def served(self) -> None:
        """Note that a call succeeded: what went wrong before is forgotten."""
        self._misfortunes, self._failures, self._reasons = 0, 0, []

    async def stop(self, timeout_s: float) -> None:
        """End the pool, or its making, in an orderly way; ``terminate`` then ends what is left."""
        if self._rebuilding is not None:
            self._rebuilding.cancel()
            await asyncio.wait({self._rebuilding})
        self._spare.drop()
        if self.pool is not None:
            await self.pool.stop(timeout_s)
        await self._spare.settle()

    def terminate(self, timeout_s: float) -> None:
        """End the pool at once, for callers that cannot await."""
        if self._rebuilding is not None:
            self._rebuilding.cancel()
        for pool in (self._lost, self.pool):
            if pool is not None:
                pool.destroy_now(timeout_s)
        self._spare.drop_now(timeout_s)
        self._forget()

    async def _warm_pool(self) -> Pool:
        if self._ready is None:
            raise NotRunning("the runner is not running")
        return await asyncio.shield(self._ready)

    async def _make(self, instead_of: Pool | None = None) -> None:
        ready, launch, threads = self._ready, self._launch, self._threads
        if launch is None or ready is None or threads is None:
            raise NotRunning("the runner was stopped")
        if instead_of is not None and launch.master_port is not None:
            # Two generations cannot listen on one port.
            await instead_of.destroy()
        try:
            pool = self.pool = self._spare.take() or Pool(launch, self._listener, threads)
            await pool.start(self._timeout_s, instead_of=instead_of)
        except RunnerError:
            raise
        except Exception as exc:
            # No process, no descriptor, no space, no thread: each has a type of its own, and all may pass.
            raise SpawnFailed(f"the ranks could not be started: {type(exc).__name__}: {exc}") from exc
        if self._ready is not ready:
            # Stopped in the last moment, and perhaps started again: these ranks are nobody's.
            await pool.destroy()
            raise NotRunning("the runner was stopped")
        self.state = RunnerState.WARM
        ready.set_result(pool)

    async def _rebuild(self, lost: Pool) -> None:
        try:
            if await self._has_made_again(lost):
                return
        except Exception as exc:  # noqa: BLE001 - whatever it is, calls wait for these ranks
            _log.exception("rebuilding the ranks was given up")
            self._reasons.append(SpawnFailed(f"rebuilding was given up: {type(exc).__name__}: {exc}"))
        finally:
            await lost.destroy()
            self._lost = None
        self.pool = None
        self.state = RunnerState.BROKEN
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(PoolBroken(self._reasons))
            self._ready.exception()

    async def _has_made_again(self, lost: Pool) -> bool:
        while self._failures < self._rebuild_attempts:
            await asyncio.sleep(pause_before(self._misfortunes))
            try:
                await self._make(lost)
            except RunnerError as exc:
                self._misfortunes += 1
                self._failures += 1
                self._reasons.append(exc)
                _log.warning("rebuilding the ranks failed (%d of %d): %s", self._failures, self._rebuild_attempts, exc)
                # What these still hold may be what was missing.
                await lost.destroy()
            else:
                self.restarts += 1
                _log.info("the ranks are warm again")
                return True
        return False

    def _forget(self) -> None:
        self.pool = self._lost = self._rebuilding = None
        self.state = RunnerState.STOPPED
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(NotRunning("the runner was stopped"))
            self._ready.exception()
        self._ready = None
        if self._threads is not None:
            self._threads.close()
            self._threads = None
