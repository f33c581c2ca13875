"""Look: what no doorbell has said. Jobs that a node could start are found although nobody rang, or rang in vain.

It claims nothing: executors do. The node keeps its two duties up, and one app that fails costs the others no turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import log, waiting
from stoker.database import is_unreachable
from stoker.jobs import QueueKey
from worker_node.executor import Executor
from worker_node.placement import Placement

logger = log.get(__name__)


class Look:
    """All of it belongs on the node's loop. ``on_change`` hears of each app that was looked after."""

    def __init__(
        self,
        db: AsyncEngine,
        node_id: str,
        placement: Placement,
        executors: Mapping[str, Executor],
        *,
        every_s: float,
        on_change: Callable[[str], None],
    ) -> None:
        self._db, self._node_id, self._placement, self._executors = db, node_id, placement, executors
        self._every_s, self._on_change = every_s, on_change

    async def run(self) -> None:
        """A lost doorbell costs this long at most."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.turn()

    async def turn(self) -> None:
        """Ask each app once."""
        for app, executor in self._executors.items():
            with _apart(app):
                while executor.is_open and await executor.answer() is not None:
                    pass
                await self._ask_after_waiting(executor)
                self._on_change(app)

    async def give_turns(self) -> None:
        """Claim for whoever has waited for slots, as soon as they are to be had."""
        while True:
            await self._placement.stirred.wait()
            self._placement.stirred.clear()
            for app in self._placement.whose_turn():
                with _apart(app):
                    if self._executors[app].is_open:
                        await self._executors[app].answer()

    async def _ask_after_waiting(self, executor: Executor) -> None:
        """Make known what waits for slots that others hold: no doorbell of it is heard here.

        What could not be claimed even then waits for something else, and keeps no slots from those who could use them.
        """
        if executor.lacks_slots:
            queue = QueueKey(executor.version.id, uses_gpus=True)
            waited_s = await waiting.oldest_s(self._db, queue, self._node_id)
            self._placement.waits(executor.app, waited_s)
        elif executor.lacks_more_than_slots:
            self._placement.waits(executor.app, None)


@contextmanager
def _apart(app: str) -> Iterator[None]:
    """One app's error is no other's; that Postgres is away is everyone's."""
    try:
        yield
    except Exception as error:
        if is_unreachable(error):
            raise
        logger.exception("app_not_asked", app=app, next="the others are; it is asked again")
