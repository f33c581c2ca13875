"""DistributedRunner: a warm pool of ranks that serves one call at a time and heals itself.

The public face, with the names, signatures and defaults of fal's. What a failure means is decided in ``dispatch``.
Never imports torch, unless a result holds a tensor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Self

from worker_node.distributed import wire
from worker_node.distributed.dispatch import Dispatcher
from worker_node.distributed.errors import AlreadyRunning, NotRunning, RunnerError
from worker_node.distributed.events import RankEvent, RankLog, RunnerState, RunnerStatus
from worker_node.distributed.hooks import Hooks
from worker_node.distributed.keepalive import KeepAlive
from worker_node.distributed.launch import Launch
from worker_node.distributed.references import reference
from worker_node.distributed.text_events import image_format_named
from worker_node.distributed.text_stream import texts
from worker_node.distributed.worker import DistributedWorker

OnEvent = Callable[[RankEvent], Awaitable[None] | None]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_ALIVE = frozenset({RunnerState.WARM, RunnerState.BUSY, RunnerState.REBUILDING})


class DistributedRunner:
    """Runs a worker class on ``world_size`` ranks. Belongs to the event loop in which it was started.

    Args:
        worker_cls: the class, or "package.module:Class" so that this process need not import it.
        world_size: how many ranks; one GPU each where there are GPUs.
        master_addr: where rank 0 listens for the others.
        master_port: its port; None lets the system choose a free one.
        worker_addr, worker_port, set_device: taken from code written for fal and not used.
        timeout: seconds; how long a collective may hang, and the limit of calls that name none.
        keepalive_payload: what a keepalive call sends.
        keepalive_interval: seconds of idleness before a keepalive call; None for never.
        cwd: working directory of the ranks, where they also look for modules.
        devices: which GPUs, counted among those that this process sees; None for all, [] for none (CPU).
        env: what the ranks' environment has beyond this process's own.
        on_log: hears each log record and line of output of a rank, in the event loop.
        on_change: hears each change of what the runner is doing, in the event loop.
        grace_s: how long ranks may take to stop after a timeout, a cancel or a failure, before they are killed.
        max_waiting: how many calls may wait for their turn.
        rebuild_attempts: failures to rebuild in a row before the runner gives up.
        heartbeat_s: silence after which a stream of text events has a comment, so that proxies keep it open.
    """

    def __init__(
        self,
        worker_cls: type[DistributedWorker] | str = DistributedWorker,
        world_size: int = 1,
        master_addr: str = "127.0.0.1",
        master_port: int | None = None,
        worker_addr: str = "127.0.0.1",  # noqa: ARG002 - part of the interface that ported code calls
        worker_port: int | None = None,  # noqa: ARG002 - likewise
        timeout: float = 86400,
        keepalive_payload: Mapping[str, Any] = _NOTHING,
        keepalive_interval: float | None = None,
        cwd: str | os.PathLike[str] | None = None,
        set_device: Any = None,  # noqa: ARG002 - likewise, and out of use there
        *,
        devices: Sequence[int | str] | None = None,
        env: Mapping[str, str] | None = None,
        on_log: Callable[[RankLog], None] | None = None,
        on_change: Callable[[RunnerStatus], None] | None = None,
        grace_s: float = 2.0,
        max_waiting: int = 1000,
        rebuild_attempts: int = 3,
        heartbeat_s: float = 15.0,
    ) -> None:
        if world_size < 1:
            raise ValueError(f"world_size is {world_size}, it must be at least 1")
        if devices and len(devices) < world_size:
            raise ValueError(f"{world_size} ranks need as many devices, {len(devices)} are given")
        self.world_size, self.timeout, self._heartbeat_s = world_size, timeout, heartbeat_s
        self._keepalive_payload = keepalive_payload
        self._keepalive = KeepAlive(keepalive_interval, self.keepalive)
        self._launch = Launch(
            worker=reference(worker_cls),
            world_size=world_size,
            setup=(),
            master_addr=master_addr,
            master_port=master_port,
            group_timeout_s=timeout,
            devices=devices,
            cwd=None if cwd is None else os.fspath(cwd),
            env=dict(env or {}),
        )
        self._dispatcher = Dispatcher(
            world_size=world_size,
            grace_s=grace_s,
            max_waiting=max_waiting,
            rebuild_attempts=rebuild_attempts,
            hooks=Hooks(on_log, on_change),
            on_idle=self._on_idle,
        )

    async def start(self, timeout: float = 1800, **setup_kwargs: Any) -> None:
        """Start the ranks and run ``setup(**setup_kwargs)`` on each; return when all are ready.

        Raises:
            AlreadyRunning: it has ranks.
            SetupFailed: with rank, type, message and traceback of the first rank that failed.
            RankDied: a rank ended before it was ready.
            StartTimeout: also a TimeoutError.
        """
        if self._dispatcher.state is RunnerState.BROKEN:
            await self._dispatcher.stop(0)
        if self._dispatcher.state is not RunnerState.STOPPED:
            raise AlreadyRunning("the runner is running already")
        launch = dataclasses.replace(self._launch, setup=wire.encode(setup_kwargs))
        await self._dispatcher.start(launch, timeout)

    async def call(
        self,
        payload: Mapping[str, Any],
        *,
        streaming: bool = True,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
    ) -> Any:
        """Run one call on all ranks and return rank 0's result; ``on_event`` gets each event before that.

        ``timeout`` includes the wait for the call's turn; None is the runner's own.

        Raises:
            RankFailed: the worker raised on a rank.
            RankDied: a rank's process ended.
            CallTimeout: also a TimeoutError.
            CallCancelled: by ``cancel()``.
            PoolBroken: the ranks could not be rebuilt after an earlier failure.
        """
        limit = self.timeout if timeout is None else timeout
        wants_events = on_event is not None
        begin = self._dispatcher.begin
        call = await begin(payload, streaming=streaming, wants_events=wants_events, timeout_s=limit)
        try:
            while (event := await call.next_event()) is not None:
                if on_event is not None and inspect.isawaitable(handled := on_event(event)):
                    await handled
            return wire.decode(call.outcome.result())
        finally:
            self._dispatcher.leave(call)
            # It has the exception, whose frames would have it: both would stay until the garbage collector comes by.
            del call

    async def invoke(self, payload: Mapping[str, Any] = _NOTHING, timeout: float | None = None) -> Any:
        """Run one call with ``streaming=False`` and return rank 0's result. Raises as ``call`` does."""
        return await self.call(payload, streaming=False, timeout=timeout)

    async def stream(
        self,
        payload: Mapping[str, Any] = _NOTHING,
        timeout: float | None = None,
        streaming_timeout: float | None = None,
        as_text_events: bool = False,
    ) -> AsyncIterator[Any]:
        """Run one call with ``streaming=True``: yield what the ranks add, then rank 0's result.

        Raises as ``call`` does. ``timeout`` None is no limit; ``streaming_timeout`` bounds the silence between two
        events. With ``as_text_events`` yields bytes of Server-Sent Events: ``progress``, ``error`` and at the end
        ``result``, or an ``error`` with its ``code`` before it raises. Leaving the loop cancels the call.
        """
        image_format = image_format_named(payload.get("image_format", "jpeg")) if as_text_events else ""
        call = await self._dispatcher.begin(payload, streaming=True, wants_events=True, timeout_s=timeout)
        try:
            if as_text_events:
                following = functools.partial(call.next_event, streaming_timeout)
                async with contextlib.aclosing(texts(call, following, self._heartbeat_s, image_format)) as stream:
                    async for text in stream:
                        yield text
            else:
                while (event := await call.next_event(streaming_timeout)) is not None:
                    yield event.data
                yield wire.decode(call.outcome.result())
        finally:
            self._dispatcher.leave(call)
            # As in ``call``.
            del call

    async def cancel(self) -> None:
        """Cancel the call that runs; return when the ranks are free, or were killed and are being rebuilt."""
        await self._dispatcher.cancel()

    async def stop(self, timeout: float = 10) -> None:
        """Send away who waits, let the running call end, run ``teardown`` and end the ranks; kill what takes longer."""
        self._keepalive.cancel()
        await self._dispatcher.stop(timeout)

    def terminate(self, timeout: float = 10) -> None:
        """Kill the ranks at once; for code that cannot await."""
        self._keepalive.cancel()
        self._dispatcher.terminate(timeout)

    def status(self) -> RunnerStatus:
        """Describe runner, ranks and queue at this moment."""
        return self._dispatcher.status()

    def is_alive(self) -> bool:
        """Tell whether calls are taken; a runner that is being rebuilt takes them."""
        return self._dispatcher.state in _ALIVE

    def ensure_alive(self) -> None:
        """Raise NotRunning where calls are not taken."""
        if not self.is_alive():
            raise NotRunning(f"the runner is {self._dispatcher.state}")

    def gather_errors(self) -> list[RunnerError]:
        """Return what the ranks raised in the last call that failed, or how the last one died."""
        return list(self._dispatcher.errors)

    async def keepalive(self, timeout: float = 60.0) -> None:
        """Make a call with the keepalive payload."""
        await self.invoke(self._keepalive_payload, timeout=timeout)

    def maybe_start_keepalive(self) -> None:
        """Count idleness from now, where an interval was given."""
        self._keepalive.start()

    maybe_reset_keepalive = maybe_start_keepalive

    def maybe_cancel_keepalive(self) -> None:
        """Stop counting."""
        self._keepalive.cancel()

    async def __aenter__(self) -> Self:
        """Start with the defaults."""
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    def _on_idle(self, idle: bool) -> None:
        (self._keepalive.start if idle else self._keepalive.cancel)()
