"""Opening: the apps of a node, started and published, before the node takes jobs.

An app that cannot be served is no reason not to serve the others. It starts no ranks. The node calls it, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import apps, log
from stoker.apps import AppVersion
from stoker.database import is_passing
from stoker.errors import AppDefinitionError, ConfigurationError
from stoker.manifest import Manifest
from worker_node.host import AppHost, AppSpec

LATE_S = 60.0
"""How long the others may take once one app can be served: it is not to wait for one that hangs when it is imported."""
TEARDOWN_S = 10.0
MAX_PROBLEM = 500

logger = log.get(__name__)


@dataclass
class Opened:
    """What is served, in the order in which it was asked for, and one line for each app that is not."""

    served: list[tuple[AppHost, AppVersion]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


async def open_apps(
    db: AsyncEngine, specs: Sequence[AppSpec], *, slots: int | None, are_gpus: bool, on_change: Callable[[], None]
) -> Opened:
    """Start the app hosts and publish their apps. ``slots``: how many the node has; None: as many as are wanted.

    Raises:
        ConfigurationError: none of the apps can be served; the first one's reason.
    """
    opened = Opened()
    hosts = [AppHost(spec, on_change=lambda _: on_change()) for spec in specs]
    starts = await _start_all(hosts)
    failures: list[ConfigurationError] = []
    names: set[str] = set()
    for host, failure in zip(hosts, starts, strict=True):
        problem = failure or _problem(host, names, slots, are_gpus=are_gpus)
        if problem is None and host.manifest is not None:
            published = await _publish(db, host.manifest)
            if isinstance(published, AppVersion):
                names.add(published.app)
                opened.served.append((host, published))
                logger.info("app_published", app=published.app, version=published.hash[:12])
            else:
                problem = published
        if problem is not None:
            failures.append(problem)
            logger.warning("app_not_served", app=host.spec.import_string, error=str(problem), hint=problem.hint)
            opened.refused.append(f"app {host.spec.import_string} is not served: {problem}")
            await host.stop(0 if host.manifest is None else TEARDOWN_S)  # what has not been imported hears nothing
    if failures and not opened.served:
        raise failures[0]
    return opened


async def _start_all(hosts: Sequence[AppHost]) -> list[ConfigurationError | None]:
    """Why each cannot be served; None: it can. Whoever is late is not waited for."""
    starts = [asyncio.create_task(_start(host)) for host in hosts]
    pending = set(starts)
    while pending and not any(start.done() and start.result() is None for start in starts):
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    if pending:
        _, pending = await asyncio.wait(pending, timeout=LATE_S)
    for start in pending:
        start.cancel()
    return [_late(host) if start in pending else start.result() for host, start in zip(hosts, starts, strict=True)]


def _late(host: AppHost) -> ConfigurationError:
    message = f"{host.spec.import_string} was not imported within {LATE_S:g} s after another app was"
    hint = "Do slow things in the worker's setup, not when the module is imported; then start the node again."
    return AppDefinitionError(message, hint=hint)


async def _publish(db: AsyncEngine, manifest: Manifest) -> AppVersion | ConfigurationError:
    try:
        return await apps.publish(db, manifest)
    except Exception as error:
        if is_passing(error):
            raise
        hint = "Most often it is a text of the app that Postgres cannot hold: look at names and docstrings."
        return AppDefinitionError(f"{manifest.app} could not be published: {error}"[:MAX_PROBLEM], hint=hint)


async def _start(host: AppHost) -> ConfigurationError | None:
    try:
        await host.start()
    except ConfigurationError as error:
        return error
    return None


def _problem(host: AppHost, names: set[str], slots: int | None, *, are_gpus: bool) -> ConfigurationError | None:
    app = host.manifest.app if host.manifest is not None else ""
    if app in names:
        return ConfigurationError(f"two apps are named {app!r}", hint="Give each a name of its own.")
    if slots is None or host.size <= slots:
        return None
    one = "GPU" if are_gpus else "slot"
    return ConfigurationError(
        f"{app} wants {host.size} {one}s, and the node has {slots}",
        hint=f"Use --world-size {slots} or less, or a smaller num_gpus in the app"
        + ("." if are_gpus else ", or more --slots."),
    )
