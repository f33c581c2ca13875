"""A pool: one generation of ranks, from their spawn to their end.

Starts all ranks or none, passes on what they say, and says when one ends; their processes are a ``crew``. Does not
restart: after a failure the runner throws a pool away and makes the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from worker_node.distributed.batch import Event, Item, Line, unpacked
from worker_node.distributed.cancel_flag import CancelFlag
from worker_node.distributed.channel import Channel
from worker_node.distributed.crew import Crew
from worker_node.distributed.errors import NotRunning, RankDied, SpawnFailed, StartTimeout
from worker_node.distributed.events import RankLog, RankState, RankStatus
from worker_node.distributed.hub import Hub
from worker_node.distributed.launch import Launch
from worker_node.distributed.media import Frame
from worker_node.distributed.messages import Kind, Message
from worker_node.distributed.processes import RankProcess
from worker_node.distributed.shelf import staged_in
from worker_node.distributed.start import Start
from worker_node.distributed.threads import Threads

_log = logging.getLogger("worker_node.distributed")

# Ends of pools that go on though nobody waits for them any more.
_destroying: set[asyncio.Task[None]] = set()


class Listener(Protocol):
    """What hears a pool: the runner, and tests."""

    def on_report(self, message: Message) -> None:
        """Take a rank's report on a call."""

    def on_event(self, call: int, event: Event) -> None:
        """Take an event of a call."""

    def on_log(self, log: RankLog) -> None:
        """Take a log line."""

    def on_death(self, error: RankDied) -> None:
        """Take the end of a rank that was ready."""


class Pool:
    """The ranks of one runner."""

    def __init__(self, launch: Launch, listener: Listener, threads: Threads) -> None:
        self._launch, self._listener, self._threads = launch, listener, threads
        self.logs_dropped = 0
        self._flag = CancelFlag.create()
        self._channels: list[Channel] = []
        try:
            for _ in range(launch.world_size):
                self._channels.append(Channel())
            self._hub = Hub(self._on_message, threads)
        except BaseException:
            self._close_channels()
            raise
        self._start = Start(launch, self._hub)
        self._dead: RankDied | None = None
        self._crew = Crew(
            launch,
            self._channels,
            [channel.wiring(self._hub, self._flag) for channel in self._channels],
            on_line=self._on_line,
            on_end=self._on_end,
            on_failure=self._start.give_up,
        )

    @property
    def dropped(self) -> int:
        """How many messages were not this pool's."""
        return self._hub.dropped

    def ranks(self, busy: set[int]) -> tuple[RankStatus, ...]:
        """Describe the ranks, of which ``busy`` work on a call."""
        return tuple(RankStatus(each.rank, each.pid, self._state_of(each, busy)) for each in self._crew.processes)

    @property
    def is_whole(self) -> bool:
        """Whether no rank has died."""
        return self._dead is None

    async def start(self, timeout_s: float, *, instead_of: Pool | None = None) -> None:
        """Spawn the ranks and wait until each is ready; they touch no GPU before the pool that they replace is gone.

        Raises:
            SetupFailed: the first rank that failed, with its traceback.
            RankDied: a rank ended before it was ready.
            StartTimeout: they took too long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.spawn()
                if instead_of is not None:
                    await instead_of.destroy()
                self._start.let_join()
                await self._start.ready
                self._raise_death()
        except TimeoutError as exc:
            await self._destroy_surely()
            raise StartTimeout(timeout_s=timeout_s, missing=self._start.missing) from exc
        except BaseException:
            await self._destroy_surely()
            raise

    def send_call(self, call: int, value: Sequence[Frame], *, streaming: bool, wants_events: bool) -> None:
        """Hand a call to every rank."""
        fields = {"streaming": streaming, "wants_events": wants_events}
        message = Message(Kind.CALL, 0, call, fields, value)
        if any(staged_in(frame) is not None for frame in value):
            for rank, channel in enumerate(self._channels):
                self._hub.send(channel.outgoing(message), [rank])
        else:
            self._hub.send(message, range(self._launch.world_size))

    def cancel(self, call: int) -> None:
        """Set the flag that the ranks' ``raise_if_cancelled`` reads."""
        self._flag.cancel(call)

    async def stop(self, timeout_s: float) -> None:
        """Let the ranks run ``teardown`` and exit; kill those that take longer."""
        self._crew.expect_end()
        if self._start.ready.done() and self._crew.processes:
            self._hub.send(Message(Kind.STOP, 0), range(self._launch.world_size))
            await asyncio.wait([process.ended for process in self._crew.processes], timeout=timeout_s)
        await self.destroy()

    def kill(self) -> None:
        """Send SIGKILL to every rank, and to what they started."""
        self._crew.kill()
        self._start.give_up(NotRunning("the runner was stopped while it started"))

    async def destroy(self) -> None:
        """Kill what is left, wait until the processes are gone and give everything back."""
        self.kill()
        await self._crew.gone()
        self._close()

    def destroy_now(self, timeout_s: float) -> None:
        """Do what ``destroy`` does, for callers that cannot await."""
        self.kill()
        self._crew.gone_now(timeout_s)
        self._close()

    async def _destroy_surely(self) -> None:
        """Destroy, to the end even if whoever waits for it is cancelled again."""
        destroying = asyncio.ensure_future(self.destroy())
        _destroying.add(destroying)
        destroying.add_done_callback(_destroying.discard)
        await asyncio.shield(destroying)

    def _close(self) -> None:
        self._hub.close()
        self._crew.close()
        self._close_channels()

    def _close_channels(self) -> None:
        self._flag.close()
        for channel in self._channels:
            channel.close()

    async def spawn(self) -> None:
        """Start the processes, once. They import what they need and touch no GPU until ``start`` lets them join."""
        await self._crew.spawn(self._threads.spawner)

    def _state_of(self, process: RankProcess, busy: set[int]) -> RankState:
        if process.ending.done():
            return RankState.DEAD
        if process.rank not in self._start.ready_ranks:
            return RankState.STARTING
        return RankState.BUSY if process.rank in busy else RankState.IDLE

    def _raise_death(self) -> None:
        """Raise where a rank ended between its own readiness and the last one's."""
        if self._dead is not None:
            raise self._dead

    def _on_message(self, message: Message) -> None:
        try:
            self._take(self._channels[message.rank].incoming(message))
        except Exception as exc:  # noqa: BLE001 - whatever it is, somebody waits for what was in it
            # What hangs on this message can never be whole: let it end as if the rank were gone.
            _log.exception("a message of rank %d could not be taken", message.rank)
            self._start.give_up(SpawnFailed(f"a message of rank {message.rank} could not be taken: {exc}"))
            if message.rank < len(self._crew.processes):
                self._crew.processes[message.rank].kill()

    def _take(self, message: Message) -> None:
        if message.kind is Kind.BATCH:
            self._on_batch(message)
        elif message.call:
            self._listener.on_report(message)
        else:
            self._start.receive(message)

    def _on_batch(self, message: Message) -> None:
        rank, window = message.rank, self._channels[message.rank].window
        items = list(unpacked(message))
        window.received(sum(item.cost_bytes for item in items))
        for item in items:
            if isinstance(item, Item):
                self._listener.on_event(message.call, Event(rank, item, window))
                continue
            if isinstance(item, Line):
                log = RankLog(rank, item.level, item.text)
            else:
                self.logs_dropped += item.lines
                log = RankLog(rank, logging.WARNING, f"{item.lines} log lines were dropped: nobody read fast enough")
            self._listener.on_log(log)
            window.taken(item.cost_bytes)

    def _on_line(self, rank: int, stream: str, text: str) -> None:
        self._listener.on_log(RankLog(rank, logging.WARNING if stream == "stderr" else logging.INFO, text))

    def _on_end(self, process: RankProcess, exit_code: int) -> None:
        self._hub.drain()
        error = RankDied(rank=process.rank, exit_code=exit_code, last_output=process.last_output)
        self._dead = self._dead or error
        if self._start.ready.done():
            self._listener.on_death(error)
        else:
            self._start.give_up(error)
