"""``stoker queues``: pause and resume apps and set their limits, on the database itself.

What waits is in ``v_queue_depth`` (``stoker sql``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stoker.cli import show
from stoker.cli.extras import require
from stoker.cli.options import AsJson
from stoker.cli.with_database import with_database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from stoker.app_limits import AppLimits

queues = typer.Typer(help="Pause and resume apps, and set their limits.")

App = Annotated[str, typer.Argument(help="The app: owner/alias.")]


@queues.command()
def pause(app: App, *, as_json: AsJson = False) -> None:
    """Start none of an app's jobs from now on. What runs goes on, what waits stays."""
    require("sqlalchemy", extra="api")
    from stoker import app_limits

    _change(app, lambda db: app_limits.pause(db, app), as_json=as_json)


@queues.command()
def resume(app: App, *, as_json: AsJson = False) -> None:
    """Start an app's jobs again, within two seconds."""
    require("sqlalchemy", extra="api")
    from stoker import app_limits

    _change(app, lambda db: app_limits.resume(db, app), as_json=as_json)


@queues.command("set")
def set_limits(
    app: App,
    *,
    max_running: Annotated[int | None, typer.Option(min=0, help="How many run at once; 0: no limit.")] = None,
    max_length: Annotated[int | None, typer.Option(min=0, help="How many may wait; 0: no limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set an app's limits, from the next claim and the next submit on."""
    require("sqlalchemy", extra="api")
    from stoker import app_limits

    given = {"max_running": max_running, "max_queue_length": max_length}
    limits = {name: value or None for name, value in given.items() if value is not None}
    _change(app, lambda db: app_limits.set_limits(db, app, limits), as_json=as_json)


def _change(app: str, act: Callable[[AsyncEngine], Awaitable[AppLimits]], *, as_json: bool) -> None:
    limits = with_database(act)
    if as_json:
        show.as_json({"app": app, **asdict(limits)})
        return
    state = "paused" if limits.paused else "open"
    caps = f"{limits.max_running or 'any number'} at once, {limits.max_queue_length or 'any number'} may wait"
    show.line(f"{app} is {state}: {caps}")
