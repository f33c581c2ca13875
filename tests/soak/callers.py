"""The callers of a soak: make a planned call and check that its answer is what it must be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any

from tests.soak import values
from tests.soak.ledger import Heard, Ledger, WrongAnswer, check_result
from tests.soak.plan import LARGE_BYTES, SMALL_BYTES, Planned
from worker_node.distributed import (
    CallCancelled,
    CallTimeout,
    DistributedRunner,
    RankDied,
    RankEvent,
    RankFailed,
    RunnerError,
    SerializationFailed,
)

# No call of a soak takes so long, a rebuild before it included.
PATIENCE_S = 60.0


class Callers:
    """Makes the calls of one runner."""

    def __init__(self, runner: DistributedRunner, ledger: Ledger) -> None:
        self._runner, self._ledger = runner, ledger

    async def make(self, call: Planned) -> None:
        """Make one planned call, or several at once, and wait for what comes of it.

        Raises:
            WrongAnswer: it was not what it must be.
        """
        if call.parts:
            await asyncio.gather(*(self.make(part) for part in call.parts))
            return
        self._ledger.enter(call)
        try:
            async with asyncio.timeout(PATIENCE_S):
                how = await self._make(call)
        except RunnerError as exc:
            raise WrongAnswer(f"call {call.nonce} ({call.kind}) ended with {exc!r}") from exc
        except TimeoutError as exc:
            raise WrongAnswer(f"call {call.nonce} ({call.kind}) was not answered within {PATIENCE_S:g} s") from exc
        self._ledger.close(call, how)

    async def _make(self, call: Planned) -> str:
        match call.kind:
            case "echo" | "echo_media" | "echo_large":
                return await self._echo(call)
            case "make" | "make_large":
                expected = values.some_value(random.Random(call.nonce), call.payload["size_bytes"])
                return await self._invoke(call, expected)
            case "reduce":
                return await self._invoke(call, 16.0 * call.world_size)
            case "talk":
                return await self._invoke(call, call.payload["lines"])
            case "stream" | "stream_media" | "flood" | "text" | "leave":
                return await self._stream(call)
            case "listen":
                return await self._listen(call)
            case "cancel" | "deaf_cancel" | "cancel_task":
                return await self._cancel(call)
            case "cancel_early":
                return await self._cancel_early(call)
            case "kill_idle":
                return await self._kill_idle(call)
            case _:
                return await self._fail(call)

    async def _invoke(self, call: Planned, expected: Any, **more: Any) -> str:
        check_result(call, await self._runner.invoke(told(call, **more)), expected)
        return "result"

    async def _echo(self, call: Planned) -> str:
        rng, size_bytes = random.Random(call.nonce), LARGE_BYTES if call.kind == "echo_large" else SMALL_BYTES
        value = values.small_dict(rng) if call.kind == "echo" else values.some_value(rng, size_bytes)
        return await self._invoke(call, value, value=value)

    async def _stream(self, call: Planned) -> str:
        heard, result = Heard(call), None
        leave_after = random.Random(call.nonce).randint(1, 20) if call.kind == "leave" else None
        if call.kind == "text":
            items = texts(self._runner.stream(told(call), as_text_events=True))
        else:
            items = self._runner.stream(told(call))
        async for item in items:
            if result is not None:
                raise WrongAnswer(f"call {call.nonce}: something came after the result")
            if "number" not in item:
                result = item
                continue
            heard.hear(item)
            if heard.count == leave_after:
                return "left"
        heard.end()
        check_result(call, result, len(heard.events))
        return "result"

    async def _listen(self, call: Planned) -> str:
        heard = Heard(call)

        async def listen(event: RankEvent) -> None:
            await asyncio.sleep(0)
            heard.hear(event.data)

        result = await self._runner.call(told(call), on_event=listen)
        heard.end()
        check_result(call, result, len(heard.events))
        return "result"

    async def _cancel(self, call: Planned) -> str:
        """Cancel a call that waits: by the runner, or by its caller's task, which is this one."""
        caller, cancels, heard = asyncio.current_task(), [], Heard(call)
        error: BaseException | None = None

        def listen(event: RankEvent) -> None:
            heard.hear(event.data)
            if call.kind == "cancel_task":
                caller.cancel()
            else:
                cancels.append(asyncio.ensure_future(self._runner.cancel()))

        try:
            await self._runner.call(told(call), on_event=listen)
        except CallCancelled as exc:
            error = exc
        except asyncio.CancelledError as exc:
            error = exc
            caller.uncancel()
        await asyncio.gather(*cancels)
        return self._expect(call, error, asyncio.CancelledError if call.kind == "cancel_task" else CallCancelled)

    async def _cancel_early(self, call: Planned) -> str:
        """Cancel a caller at any moment; it may be too late."""
        task = asyncio.ensure_future(self._runner.invoke(told(call)))
        for _ in range(random.Random(call.nonce).randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            check_result(call, await task, 16.0 * call.world_size)
        except asyncio.CancelledError:
            return "CancelledError"
        return "result"

    async def _kill_idle(self, call: Planned) -> str:
        """Kill a rank while none calls. The next call may be told so, or come after it."""
        ranks = self._runner.status().ranks
        if ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(ranks[call.nonce % len(ranks)].pid, signal.SIGKILL)
        try:
            return await self._invoke(call, 16.0 * call.world_size)
        except RankDied as exc:
            return self._expect(call, exc, RankDied)

    async def _fail(self, call: Planned) -> str:
        kind: type[BaseException]
        limits: dict[str, float] = {}
        match call.kind:
            case "fail" | "fail_half":
                kind = RankFailed
            case "lock_payload" | "lock_result" | "lock_event":
                kind = SerializationFailed
            case "kill" | "exit":
                kind = RankDied
            case _:
                kind = CallTimeout
                limits = {"streaming_timeout" if call.kind == "fall_silent" else "timeout": 0.1}
        more = {"lock": threading.Lock()} if call.kind == "lock_payload" else {}
        heard = Heard(call)
        try:
            async for item in self._runner.stream(told(call, **more), **limits):
                heard.hear(item)
        except RunnerError as exc:
            return self._expect(call, exc, kind)
        raise WrongAnswer(f"call {call.nonce} ({call.kind}) ended well")

    def _expect(self, call: Planned, error: object, kind: type[BaseException]) -> str:
        if type(error) is not kind:
            raise WrongAnswer(f"call {call.nonce} ({call.kind}) ended with {error!r}, not {kind.__name__}")
        if isinstance(error, RankFailed) and error.message != str(call.nonce):
            raise WrongAnswer(f"call {call.nonce} has the error of call {error.message}")
        if isinstance(error, RankFailed) and error.rank not in call.payload["ranks"]:
            raise WrongAnswer(f"call {call.nonce}: rank {error.rank} did not fail")
        if isinstance(error, RankDied) and call.kind != "kill_idle" and error.rank != call.payload["rank"]:
            raise WrongAnswer(f"call {call.nonce}: rank {error.rank} was not the one that died")
        return kind.__name__


def told(call: Planned, **more: Any) -> dict[str, Any]:
    """The payload of a call."""
    return {"nonce": call.nonce, **call.payload, **more}


async def texts(items: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """Read text events back; ids count from 1."""
    number = 0
    async for item in items:
        number += 1
        head, _, data = item.decode().splitlines()[:3]
        if head != f"id: {number}":
            raise WrongAnswer(f"text event {number} says {head!r}")
        yield json.loads(data.removeprefix("data: "))
