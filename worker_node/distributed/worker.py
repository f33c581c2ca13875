"""The worker: what a user subclasses, one instance for each rank.

Usable without a runner too, as a plain object with rank 0 of 1: events then go nowhere and nothing is ever cancelled.
Importing this module does not import torch.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from worker_node.distributed.batch import Sort
from worker_node.distributed.errors import CallCancelled
from worker_node.distributed.text_events import image_format_named

if TYPE_CHECKING:
    import torch

    from worker_node.distributed.link import Link

_log = logging.getLogger("worker_node.distributed.rank")

T = TypeVar("T")


class DistributedWorker:
    """One rank's share of the work: override ``setup`` and ``__call__``."""

    # On the class, so that a subclass that overrides __init__ without calling ours still works.
    rank: int = 0
    world_size: int = 1
    running: bool = False
    _link: Link | None = None
    _vote: Callable[[bool], bool] | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _starting_loop = threading.Lock()

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size

    def setup(self, *args: Any, **kwargs: Any) -> Any:
        """Load what calls need; once for each process, with the keyword arguments of ``runner.start``. May be async."""

    def teardown(self) -> Any:
        """Give back what ``setup`` took; called before an orderly stop. May be async."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Serve one call: the payload's items and ``streaming`` as keyword arguments. May be async; rank 0's value is
        the result.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not override __call__")

    @property
    def device(self) -> torch.device:
        """The GPU of this rank, or the CPU where there is none."""
        from worker_node.distributed import group

        return group.device_of(self.rank)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the worker, which runs in a thread of its own from the first use on."""
        with self._starting_loop:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self.thread = threading.Thread(
                    target=self._run_loop, args=(self._loop,), name="worker-loop", daemon=True
                )
                self.thread.start()
            return self._loop

    def add_streaming_result(self, result: Any, image_format: str = "jpeg", as_text_event: bool = False) -> None:
        """Send an intermediate result to the caller; wait here while the caller is far behind.

        None is lost: what was added before ``__call__`` returns arrives before the result, and never in another call.
        Images travel without loss; ``image_format`` is for whoever writes the file. At world size 1 this also asks
        whether the call was cancelled.

        Raises:
            CallCancelled: world size 1, and the caller cancelled.
            InvalidImageFormat: it is none of jpeg, png and webp.
            SerializationFailed: a part of ``result`` has no form on the wire.
        """
        self._emit(Sort.OUTPUT, result, image_format=image_format, as_text=bool(as_text_event))

    def add_progress(self, data: Any, image_format: str = "jpeg") -> None:
        """Send progress, of which only the newest matters: while the caller is behind, the next replaces it.

        Never waits. The last before a streaming result, or before the end of the call, always arrives. Otherwise like
        ``add_streaming_result``.
        """
        self._emit(Sort.PROGRESS, data, image_format=image_format)

    def add_streaming_error(self, error: BaseException) -> None:
        """Send an error as an intermediate result; the call goes on."""
        if self._link is not None:
            self._link.emit(Sort.ERROR, {"error": str(error), "error_type": type(error).__name__})

    def raise_if_cancelled(self) -> None:
        """Stop here if the caller cancelled. A collective: every rank must ask at the same step, and then all stop at
        that step.

        Raises:
            CallCancelled: let it pass.
        """
        if self._link is None:
            return
        mine = self._link.is_cancelled()
        if mine if self._vote is None else self._vote(mine):
            raise CallCancelled("the call was cancelled")

    def rank_print(self, message: str, debug: bool = False) -> None:
        """Log a message; the parent adds the rank."""
        _log.log(logging.DEBUG if debug else logging.INFO, "%s", message)

    def submit(self, coro: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine in the worker's event loop."""
        return asyncio.run_coroutine_threadsafe(coro, self.loop)

    def run_in_worker(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Run a function in a thread beside the worker's event loop, or a coroutine function in the loop itself."""

        async def run() -> Any:
            if inspect.iscoroutinefunction(func):
                return await func(*args, **kwargs)
            return await asyncio.to_thread(self._on_device, func, *args, **kwargs)

        return self.submit(run())

    def initialize(self, **kwargs: Any) -> None:
        """Run ``setup`` to its end, sync or async."""
        self.finish(self.setup(**kwargs))
        self.running = True

    def shutdown(self, timeout: float | None = None) -> None:
        """Run ``teardown`` and end the worker's event loop."""
        self.running = False
        self.finish(self.teardown())
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self.thread.join(timeout)

    def attach(self, link: Link, vote: Callable[[bool], bool], world_size: int) -> None:
        """Connect this instance to its runner; the process of the rank calls it, user code does not."""
        self.rank, self.world_size, self._link, self._vote = link.rank, world_size, link, vote

    def finish(self, value: Any) -> Any:
        """Return ``value``, or wait in the worker's event loop for what it is awaited for."""
        return self.submit(_awaited(value)).result() if inspect.isawaitable(value) else value

    def _emit(self, sort: Sort, data: Any, *, image_format: str, as_text: bool = False) -> None:
        if self._link is None:
            return
        if self.world_size == 1:
            self.raise_if_cancelled()
        self._link.emit(sort, data, image_format=image_format_named(image_format), as_text=as_text)

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._on_device(loop.run_forever)

    def _on_device(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        # The current GPU is a property of each thread: a new one begins at GPU 0.
        if self._link is not None and self.device.type == "cuda":
            import torch

            torch.cuda.set_device(self.device)
        return func(*args, **kwargs)


async def _awaited(value: Any) -> Any:
    return await value
