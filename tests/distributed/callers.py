"""Callers of scripted calls, each in a task of its own, and the warm runner that they share.

A caller keeps what it saw; whether that is right is the model's to say.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.distributed.script_model import Event, Expected, Outcome, Step, expect
from worker_node.distributed import DistributedRunner, RankDied, RankEvent, RankFailed, RunnerState

T = TypeVar("T")
# A wait that is longer than this has failed: nothing here takes seconds but the making of ranks.
PATIENCE_S = 30.0
MAX_WAITING = 4


class Way(enum.Enum):
    """How a caller calls."""

    INVOKE = "invoke"
    LISTEN = "call, with a function that hears events"
    AWAIT = "call, with a coroutine function that hears events"
    STREAM = "stream"
    TEXT = "stream, as text events"


class ListenerLeft(Exception):
    """What a listener raises that has heard enough."""


class Caller:
    """One call. ``leave_after``: how many events it takes before it leaves."""

    def __init__(
        self, nonce: int, steps: Sequence[Step], way: Way, world_size: int, leave_after: int | None = None
    ) -> None:
        self.nonce, self.way, self.leave_after = nonce, way, leave_after
        self.payload = {"nonce": nonce, "steps": [(step.operation, step.ranks, step.count) for step in steps]}
        self.expected: Expected = expect(steps, nonce, world_size, listens=way is not Way.INVOKE)
        self.seen: list[Event] = []
        self.latest: dict[int, Event] = {}
        self.outcome: Outcome | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.last_words: dict[str, Any] | None = None
        self.heard_why = True
        self.task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    @property
    def leaves(self) -> bool:
        """Whether there are as many events as it waits for."""
        return self.leave_after is not None and self.leave_after <= self.expected.total

    async def announced(self) -> None:
        """Wait for the last that rank 0 says before it blocks."""
        last = self.expected.events[0][-1]
        while self.latest.get(0) != last and self.outcome is None:
            self._more.clear()
            await self._more.wait()

    async def run(self, runner: DistributedRunner, **limits: float) -> None:
        """Make the call and keep how it ended."""
        try:
            await self._call(runner, **limits)
        except ListenerLeft:
            self.outcome = Outcome("left")
        except asyncio.CancelledError:
            self.outcome = Outcome("cancelled")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the model says whether it should have come
            self.error = exc
            rank = exc.rank if isinstance(exc, RankDied | RankFailed) else None
            self.outcome = Outcome(type(exc).__name__, rank, exc.exit_code if isinstance(exc, RankDied) else None)
            self.heard_why = self.way is not Way.TEXT or rank is None or self.last_words == told(exc)
        finally:
            self._more.set()

    async def _call(self, runner: DistributedRunner, **limits: float) -> None:
        match self.way:
            case Way.INVOKE:
                self.result = await runner.invoke(self.payload, **limits)
            case Way.LISTEN:
                self.result = await runner.call(self.payload, on_event=self._hear, **limits)
            case Way.AWAIT:
                self.result = await runner.call(self.payload, on_event=self._hear_slowly, **limits)
            case Way.STREAM:
                await self._read(runner.stream(self.payload, **limits))
            case Way.TEXT:
                await self._read_text(runner.stream(self.payload, as_text_events=True, **limits))
        self.outcome = Outcome("result", self.result["rank"])

    async def _read(self, items: AsyncIterator[Any]) -> None:
        """The result is what has sums; nothing may come after it."""
        async for item in items:
            assert self.result is None
            if "sums" in item:
                self.result = item
            else:
                self._take(item)

    async def _read_text(self, items: AsyncIterator[bytes]) -> None:
        number = 0
        async for item in items:
            assert self.result is None
            assert self.last_words is None
            number += 1
            lines = item.decode().splitlines()
            assert lines[0] == f"id: {number}"
            name, data = lines[1].removeprefix("event: "), json.loads(lines[2].removeprefix("data: "))
            if name == "result":
                self.result = data
            elif "code" in data:
                self.last_words = {name: data[name] for name in ("code", "rank") if name in data}
            else:
                self._take(data)
                assert (name == "error") == self.seen[-1].is_error

    def _hear(self, event: RankEvent) -> None:
        self._take(event.data)
        assert (self.seen[-1].rank, self.seen[-1].is_error) == (event.rank, event.is_error)

    async def _hear_slowly(self, event: RankEvent) -> None:
        await asyncio.sleep(0)
        self._hear(event)

    def _take(self, data: dict[str, Any]) -> None:
        event = recognise(data)
        self.seen.append(event)
        self.latest[event.rank] = event
        self._more.set()
        if len(self.seen) == self.leave_after:
            raise ListenerLeft


def told(error: Any) -> dict[str, Any]:
    """What the last text event of a call says that failed."""
    return {"code": error.code, "rank": error.rank}


def recognise(data: dict[str, Any]) -> Event:
    """Turn an event's data into what the model speaks of."""
    if "error" in data:
        assert data["error_type"] == "ValueError"
        return Event(*map(int, data["error"].split()), is_error=True)
    return Event(**data)


class World:
    """A warm runner of scripted ranks with an event loop of its own, which runs only while a test waits in it."""

    def __init__(self, world_size: int, folder: Path) -> None:
        self.world_size = world_size
        self.broken = folder / "broken"
        self.loop = asyncio.new_event_loop()
        self.nonces = iter(range(1, 1_000_000_000))
        self._changed = asyncio.Event()
        self.runner = DistributedRunner(
            "tests.distributed.scripted:Scripted",
            world_size,
            env={"OMP_NUM_THREADS": "1"},
            grace_s=0.5,
            max_waiting=MAX_WAITING,
            rebuild_attempts=2,
            on_change=lambda _: self._changed.set(),
        )
        self.start()

    def start(self) -> None:
        """Make the ranks."""
        self.run(self.runner.start(broken=str(self.broken)))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the loop until this is done."""
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE_S))

    async def becomes(self, *states: RunnerState) -> None:
        """Wait until the runner is in one of these states."""
        while self.runner.status().state not in states:
            self._changed.clear()
            await self._changed.wait()

    def pids(self) -> list[int]:
        """The ranks' processes."""
        return [rank.pid for rank in self.runner.status().ranks]

    def signal(self, rank: int, number: int) -> None:
        """Send a signal to a rank."""
        os.kill(self.pids()[rank], number)

    def close(self) -> None:
        """End everything."""
        self.run(self.runner.stop())
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


def seen_by_rank(caller: Caller, rank: int) -> tuple[Event, ...]:
    """What a caller saw of one rank, in order."""
    return tuple(event for event in caller.seen if event.rank == rank)


def replaced(expected: Expected, *outcomes: Outcome) -> Expected:
    """The same script, ended from outside."""
    return dataclasses.replace(expected, outcomes=frozenset(outcomes), complete=frozenset())
