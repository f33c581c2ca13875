"""The asyncio loop of a node, in a thread beside Celery's, and the bridge between the two. It decides nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

from worker_node.node import Node

TAKEN_S = 0.005
"""How long Celery's thread stands aside for the loop at most, which would else wait for its turn at the interpreter."""

T = TypeVar("T")


class SideLoop:
    """A running loop. ``close`` it when nothing uses it any more."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="node", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` there and wait for it."""
        return self.submit(work).result()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Answers:
    """Doorbells taken on Celery's side, answered by the node on its own."""

    def __init__(self, side: SideLoop, node: Node) -> None:
        self._side, self._node = side, node

    def answer(self, app: str) -> Future[Future[None] | None]:
        is_taken = threading.Event()
        answer = self._side.submit(self._answer(app, is_taken))
        is_taken.wait(TAKEN_S)
        return answer

    async def _answer(self, app: str, is_taken: threading.Event) -> Future[None] | None:
        is_taken.set()
        work = await self._node.answer(app)
        if work is None:
            return None
        ended: Future[None] = Future()
        work.add_done_callback(lambda _: ended.set_result(None))
        return ended
