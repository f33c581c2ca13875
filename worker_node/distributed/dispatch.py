"""Dispatch: calls go to the warm ranks one at a time, and what goes wrong is set right before the next one.

Decides what a failure means: which error the caller gets, and whether the ranks can serve again or are killed and
rebuilt. The public face is ``runner``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from worker_node.distributed import wire
from worker_node.distributed.batch import Event
from worker_node.distributed.calls import Call
from worker_node.distributed.errors import (
    CallCancelled,
    NotRunning,
    PoolBroken,
    RankDied,
    RunnerError,
    SerializationFailed,
)
from worker_node.distributed.events import RankLog, RunnerState, RunnerStatus
from worker_node.distributed.hooks import Hooks
from worker_node.distributed.launch import Launch
from worker_node.distributed.messages import Message
from worker_node.distributed.pool import Pool
from worker_node.distributed.shelf import KEPT_S, SHARED_BYTES, Shelf
from worker_node.distributed.turns import Turns
from worker_node.distributed.warmth import Warmth


class Dispatcher:
    """One runner's calls and ranks. ``on_idle`` hears whether the ranks became idle or busy, ``hooks`` all else."""

    def __init__(
        self,
        *,
        world_size: int,
        grace_s: float,
        max_waiting: int,
        rebuild_attempts: int,
        hooks: Hooks,
        on_idle: Callable[[bool], None],
    ) -> None:
        self.errors: list[RunnerError] = []
        self._world_size, self._grace_s = world_size, grace_s
        self._hooks, self._on_idle = hooks, on_idle
        self._turns = Turns(max_waiting)
        self._warmth = Warmth(self, rebuild_attempts, self._changed)
        self._numbers = itertools.count(1)
        self._call: Call | None = None
        self._sent_to: Pool | None = None
        self._shelf = Shelf(world_size)
        self._dropped = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> RunnerState:
        """What the runner is doing."""
        state = self._warmth.state
        return RunnerState.BUSY if state is RunnerState.WARM and self._call is not None else state

    async def start(self, launch: Launch, timeout_s: float) -> None:
        """Make the ranks."""
        self.errors, self._stopping = [], False
        await self._warmth.start(launch, timeout_s)
        self._on_idle(True)

    async def begin(
        self, payload: Mapping[str, Any], *, streaming: bool, wants_events: bool, timeout_s: float | None
    ) -> Call:
        """Send a call to the ranks when its turn has come. Whoever gets it reads its events and outcome, and leaves it.

        Raises:
            CallTimeout: its turn did not come in time. A later timeout is the call's outcome.
        """
        if not isinstance(payload, Mapping):
            raise SerializationFailed(f"a payload is a mapping of keyword arguments, not a {type(payload).__name__}")
        value = wire.encode(dict(payload), self._shelf)
        if self._stopping or self._warmth.state is RunnerState.STOPPED:
            raise NotRunning("the runner is not running")
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        if not self._turns.try_take():
            await self._turns.take(deadline, timeout_s or 0.0)
            if self._stopping:
                self._turns.give_back()
                raise NotRunning("the runner was stopped")
        call = Call(next(self._numbers), self._world_size, on_outcome=self._on_outcome)
        self._call = call
        try:
            self._on_idle(False)
            self._changed()
            if timeout_s is not None and deadline is not None:
                call.limit(deadline, timeout_s)
            if any(len(frame) >= SHARED_BYTES for frame in value):
                value = await asyncio.to_thread(self._shelf.stage, value)
                loop.call_later(1.1 * KEPT_S, self._shelf.tidy)
            pool = self._warmth.pool if self._warmth.state is RunnerState.WARM else await self._pool_for(call)
            # Nothing is awaited from here on: the pool is whole, and stays so until it has the call.
            if pool is not None and not call.outcome.done():
                call.sent, self._sent_to = True, pool
                pool.send_call(call.number, value, streaming=streaming, wants_events=wants_events)
        except BaseException:
            self.leave(call)
            raise
        return call

    def leave(self, call: Call) -> None:
        """Have done with a call; one that has not ended is cancelled."""
        call.no_limit()
        call.interrupt(CallCancelled("the caller went away"))
        call.drop_events()

    async def cancel(self) -> None:
        """Cancel the call that runs, and wait until the ranks are free or are being rebuilt."""
        if (call := self._call) is not None:
            call.interrupt(CallCancelled("cancel() was called"))
            await asyncio.shield(call.freed)

    async def stop(self, timeout_s: float) -> None:
        """Refuse who waits, give the running call its time, then end the ranks."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        stopped = NotRunning("the runner was stopped")
        self._stopping = True
        self._turns.refuse(stopped)
        try:
            if self._call is not None:
                await asyncio.wait({self._call.freed}, timeout=timeout_s)
            await self._warmth.stop(max(1.0, deadline - loop.time()))
        finally:
            # Also where this is cancelled: half stopped is no state to be in.
            self.terminate(1.0)

    def terminate(self, timeout_s: float) -> None:
        """End everything at once, without awaiting."""
        stopped = NotRunning("the runner was terminated")
        self._stopping = True
        self._turns.refuse(stopped)
        self._warmth.terminate(timeout_s)
        self._shelf.clear()
        if self._call is not None:
            self._abandon(self._call, stopped)

    def status(self) -> RunnerStatus:
        """Describe this moment."""
        pool, busy = self._warmth.pool, self._call.busy if self._call is not None and self._call.sent else set()
        ranks = () if pool is None else pool.ranks(busy)
        dropped = self._dropped + (pool.dropped if pool is not None else 0)
        logs_dropped = pool.logs_dropped if pool is not None else 0
        return RunnerStatus(self.state, ranks, self._turns.waiting, self._warmth.restarts, dropped, logs_dropped)

    def on_report(self, message: Message) -> None:
        """Give a report to the call it belongs to."""
        if self._call is not None and message.call == self._call.number:
            self._call.receive(message)
        else:
            self._dropped += 1

    def on_event(self, call: int, event: Event) -> None:
        """Give an event to the call it belongs to."""
        if self._call is not None and call == self._call.number:
            self._call.add(event)
        else:
            self._dropped += 1
            event.taken()

    def on_log(self, log: RankLog) -> None:
        """Pass a log line on."""
        self._hooks.log(log)

    def on_death(self, error: RankDied) -> None:
        """End the call on the rank that died, and rebuild."""
        self.errors = [error]
        if (pool := self._warmth.pool) is None:
            return
        if self._call is not None and self._call.sent:
            # The settling of the call rebuilds.
            self._call.rank_died(error)
        else:
            self._warmth.rebuild(pool, error, counts=True)

    async def _pool_for(self, call: Call) -> Pool | None:
        """Wait until there are warm ranks; None where the call ended before."""
        try:
            return await self._warmth.pool_unless(call.outcome)
        except (PoolBroken, NotRunning) as exc:
            self.errors = list(exc.reasons) if isinstance(exc, PoolBroken) else self.errors
            call.conclude(exc)
            return None

    def _on_outcome(self, call: Call) -> None:
        """The caller has its answer: the ranks are free now, or have to be freed."""
        error = call.outcome.exception()
        if error is None:
            self._warmth.served()
        elif call.failures:
            self.errors = list(call.failures)
        if not call.sent or self._are_in_step(call):
            self._free(call)
            return
        if self._sent_to is not None:
            self._sent_to.cancel(call.number)
        settling = asyncio.ensure_future(self._settle(call, self._sent_to, error))
        self._tasks.add(settling)
        settling.add_done_callback(self._tasks.discard)

    async def _settle(self, call: Call, pool: Pool | None, error: BaseException | None) -> None:
        """Wait until the ranks have stopped in step; after the grace, or where they did not, rebuild."""
        if pool is not None:
            head_start = asyncio.get_running_loop().call_later(self._grace_s / 4, self._warmth.prepare, pool)
            await asyncio.wait({call.settled}, timeout=self._grace_s)
            head_start.cancel()
            if not self._are_in_step(call):
                cause = error if isinstance(error, RunnerError) else NotRunning(str(error))
                self._warmth.rebuild(pool, cause, counts=False)
            else:
                self._warmth.keep()
        self._free(call)

    def _are_in_step(self, call: Call) -> bool:
        pool = self._sent_to
        return call.settled.done() and call.settled.result() and pool is not None and pool.is_whole

    def _free(self, call: Call) -> None:
        if call.freed.done():
            return
        call.freed.set_result(None)
        self._call = None
        self._turns.give_back()
        if self._call is None and not self._stopping:
            self._on_idle(True)
        self._changed()

    def _changed(self) -> None:
        self._hooks.change(self.status)

    def _abandon(self, call: Call, error: RunnerError) -> None:
        call.interrupt(error)
        if not call.settled.done():
            call.settled.set_result(False)
