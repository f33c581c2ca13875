"""Pruning: what has been kept for as long as it may be is taken away, in small batches, and its objects deleted.

``stoker.sweeps`` finds what is due and takes it away, ``stoker.removals`` remembers what the object store is to delete.
The settings are the most that anything is kept for: a caller or an app can only wish for less.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from api.control.loop import Duty
from stoker import log, removals, sweeps
from stoker.database import is_unreachable
from stoker.settings import ControlSettings
from stoker.storage import Storage

AT_ONCE = 100
"""So many jobs a transaction, fewer where that takes too long: a job may have any number of events."""
TURN_S = 5.0
SOON_S = 5.0
OLD_S = 60.0
REMOVE_S = 2.0
DAY_S = 86_400.0
TOO_LONG = ("57014", "25P04")
"""A statement that took too long, or a transaction."""

Sweep = Callable[..., Awaitable[int]]
logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Pruner:
    """Takes away what is due by ``settings`` and by wishes."""

    settings: ControlSettings
    db: AsyncEngine
    storage: Storage
    limits: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: AT_ONCE))

    def duties(self) -> list[Duty]:
        """All of them, with their pace."""
        return [
            Duty("prune_wished", SOON_S, self.prune_wished),
            Duty("prune_old", OLD_S, self.prune_old),
            Duty("remove_objects", REMOVE_S, self.remove_objects),
        ]

    async def prune_wished(self) -> None:
        """What callers and apps did not want to be kept any longer."""
        keep_s = self.settings.keep_unstored_s
        await self.all_of(
            {
                "payloads_not_stored": partial(sweeps.unstored, self.db, keep_s=keep_s),
                "outputs_expired": partial(sweeps.expired_outputs, self.db),
                "files_expired": partial(sweeps.expired_files, self.db),
            }
        )

    async def prune_old(self) -> None:
        """What the installation keeps no longer."""
        kept = self.settings
        days_of: dict[str, tuple[Sweep, float | None]] = {
            "payloads": (partial(sweeps.by_age, kind="payloads"), kept.keep_payloads_days),
            "outputs": (partial(sweeps.by_age, kind="outputs"), kept.keep_outputs_days),
            "events": (partial(sweeps.by_age, kind="events"), kept.keep_events_days),
            "delivery tries": (partial(sweeps.by_age, kind="delivery tries"), kept.keep_deliveries_days),
            "jobs": (sweeps.old_jobs, kept.keep_jobs_days),
            "files": (sweeps.old_files, kept.keep_files_days),
            "acts": (sweeps.old_acts, kept.keep_audit_days),
        }
        await self.all_of(
            {
                name: partial(sweep, self.db, keep_s=days * DAY_S)
                for name, (sweep, days) in days_of.items()
                if days is not None
            }
        )

    async def remove_objects(self) -> None:
        """Have the object store delete what nothing refers to any more."""
        done, failure = await removals.carry_out(self.db, self.storage)
        if done:
            logger.info("objects_removed", removals=done)
        if failure is not None:
            logger.warning("objects_not_removed", error=str(failure)[:300], next="tried again")

    async def all_of(self, chosen: dict[str, Sweep]) -> None:
        """Each in its turn, whatever became of those before it; the first error is raised at the end."""
        failures: list[DBAPIError] = []
        for name, sweep in chosen.items():
            try:
                await self.sweep(name, sweep)
            except DBAPIError as error:
                if is_unreachable(error):
                    raise
                logger.warning("not_pruned", what=name, error=str(error.orig)[:300], next="tried again")
                failures.append(error)
        if failures:
            raise failures[0]

    async def sweep(self, name: str, sweep: Sweep) -> None:
        """Go on until nothing is left, or for a while: what is left then is the next turn's."""
        until, handled = time.monotonic() + TURN_S, 0
        while time.monotonic() < until:
            limit = self.limits[name]
            try:
                count = await sweep(limit=limit)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) in TOO_LONG:
                    self.limits[name] = max(1, limit // 4)
                raise
            self.limits[name] = min(AT_ONCE, 2 * limit)
            handled += count
            if count < limit:
                break
        if handled:
            logger.info("pruned", what=name, count=handled)
