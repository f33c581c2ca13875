"""What an admin may set about an app: paused or not, how many of its jobs run at once, how many may wait.

Claims and submits read it in Postgres. The API and the command line call this for admins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import sql
from stoker.database import transaction
from stoker.errors import InvalidRequest, UnknownApp
from stoker.keys import Caller
from stoker.tables.columns import NO_CAP


@dataclass(frozen=True)
class AppLimits:
    """``max_running`` and ``max_queue_length`` count the jobs of all versions and tenants; None is no limit."""

    paused: bool = False
    max_running: int | None = None
    max_queue_length: int | None = None


async def pause(db: AsyncEngine, app: str, by: Caller | None = None) -> AppLimits:
    """Start none of the app's jobs from now on. What runs goes on, what waits stays, what comes is queued.

    Raises:
        UnknownApp: nobody has published it.
    """
    return await _change(db, app, "app.pause", lambda now: replace(now, paused=True), by)


async def resume(db: AsyncEngine, app: str, by: Caller | None = None) -> AppLimits:
    """Start the app's jobs again. It rings no doorbell: the caller does, or nodes look by themselves.

    Raises:
        UnknownApp: nobody has published it.
    """
    return await _change(db, app, "app.resume", lambda now: replace(now, paused=False), by)


async def set_limits(
    db: AsyncEngine, app: str, limits: Mapping[str, int | None], by: Caller | None = None
) -> AppLimits:
    """Set ``max_running``, ``max_queue_length`` or both, from the next claim and the next submit on.

    What is not named stays; None takes a limit away. What waits beyond a new queue length stays queued.

    Raises:
        UnknownApp: nobody has published it.
        InvalidRequest: a limit that cannot be.
    """
    for name, value in limits.items():
        if name not in ("max_running", "max_queue_length"):
            raise InvalidRequest(f"an app has no limit {name!r}", hint="Set max_running or max_queue_length.")
        if value is not None and not 1 <= value < NO_CAP:
            raise InvalidRequest(f"{name} is at least 1", hint="To let nothing run, pause the app.")

    def change(now: AppLimits) -> AppLimits:
        return replace(
            now,
            max_running=limits.get("max_running", now.max_running),
            max_queue_length=limits.get("max_queue_length", now.max_queue_length),
        )

    return await _change(db, app, "app.set", change, by)


async def _change(
    db: AsyncEngine, app: str, action: str, change: Callable[[AppLimits], AppLimits], by: Caller | None
) -> AppLimits:
    async with transaction(db) as tx:
        await sql.run(tx, "lock_app_named", {"app": app})
        held = await sql.row(tx, "hold_app", {"app": app})
        if held is None:
            raise UnknownApp(f"no node has published an app {app[:200]!r}")
        limits = change(AppLimits(held["paused"], held["max_running"], held["max_queue_length"]))
        values = {
            "app_id": held["id"],
            "app": held["name"],
            "action": action,
            "paused": limits.paused,
            "max_running": limits.max_running,
            "max_queue_length": limits.max_queue_length,
            "by_tenant": by and by.tenant_id,
            "by_key": by and by.key_id,
        }
        await sql.run(tx, "set_queue", values)
    return limits
