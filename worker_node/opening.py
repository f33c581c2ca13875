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
from stoker.errors import ConfigurationError
from worker_node.host import AppHost, AppSpec

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
    starts = await asyncio.gather(*(_start(host) for host in hosts))
    failures = []
    names: set[str] = set()
    for host, failure in zip(hosts, starts, strict=True):
        problem = failure or _problem(host, names, slots, are_gpus=are_gpus)
        if problem is not None:
            failures.append(problem)
            logger.warning("app_not_served", app=host.spec.import_string, error=str(problem), hint=problem.hint)
            opened.refused.append(f"app {host.spec.import_string} is not served: {problem}")
            await host.stop()
        elif host.manifest is not None:
            names.add(host.manifest.app)
            version = await apps.publish(db, host.manifest)
            opened.served.append((host, version))
            logger.info("app_published", app=version.app, version=version.hash[:12])
    if failures and not opened.served:
        raise failures[0]
    return opened


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
