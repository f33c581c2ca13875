"""Presence: what Postgres is told of this node: that it is there, what its runners do, that it goes.

A report that is lost is sent again; nothing waits for one. It decides nothing. The node calls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import log, nodes
from stoker.crash_points import Point, reach
from stoker.database import is_passing
from stoker.nodes import RunnerInfo
from worker_node.gpus import Gpu
from worker_node.records import COMMIT_S
from worker_node.registration import Identity

logger = log.get(__name__)


class Presence:
    """``runners`` says what there is to report of them, at the moment."""

    def __init__(self, db: AsyncEngine, identity: Identity, runners: Callable[[], list[RunnerInfo]]) -> None:
        self._db, self._identity, self._runners = db, identity, runners
        self.runners_changed = asyncio.Event()

    async def register(self, *, gpus: Sequence[Gpu], slots: int, versions: Sequence[UUID], lease_s: float) -> None:
        """Make the node known as ready."""
        info = self._identity.info(gpus=gpus, slots=slots, versions=versions, lease_s=lease_s)
        await nodes.register(self._db, info)
        reach(Point.NODE_REGISTERED)
        logger.info("node_registered", node_id=info.node_id, boot_id=str(info.boot_id), slots=slots)

    async def report_runners(self) -> None:
        """Report them whenever they have changed, until cancelled."""
        while True:
            await self.runners_changed.wait()
            self.runners_changed.clear()
            try:
                await nodes.report_runners(self._db, self._identity.node_id, self._identity.boot_id, self._runners())
            except Exception:
                self.runners_changed.set()
                raise

    async def heed_drain(self, every_s: float, on_drain: Callable[[], None]) -> None:
        """Look whether an admin has asked this node to drain, and say so once; until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            if await nodes.is_drain_requested(self._db, self._identity.node_id, self._identity.boot_id):
                logger.info("drain_requested", node_id=self._identity.node_id, next="ends as it does at SIGTERM")
                on_drain()
                await asyncio.Event().wait()  # a second time would end the grace

    async def say(self, state: nodes.NodeState) -> None:
        """Tell that the node drains or has stopped; a database that is away is not waited for."""
        try:
            async with asyncio.timeout(COMMIT_S):
                await nodes.set_state(self._db, self._identity.node_id, self._identity.boot_id, state)
        except Exception as error:
            if not (is_passing(error) or isinstance(error, TimeoutError)):
                raise
            logger.warning("state_not_reported", state=state, error=str(error)[:300])
