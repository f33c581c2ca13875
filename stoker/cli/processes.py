"""``stoker api|control|node|migrate``: the other parts of Stoker, started as what they are: processes of their own.

The command line becomes the process (exec), so that signals and exit codes are the part's own. All arguments
are handed on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import typer

from stoker.cli.extras import require

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@dataclass(frozen=True)
class Part:
    """A module that is run, and the module that shows whether its extra is installed."""

    module: str
    needs: str
    extra: str


PARTS: Mapping[str, Part] = {
    "api": Part("api", "fastapi", "api"),
    "control": Part("api.control", "celery", "api"),
    "node": Part("worker_node", "torch", "node"),
    "migrate": Part("migrations", "alembic", "api"),
}


def command_line(part: Part, arguments: list[str]) -> list[str]:
    """What is executed in place of this process.

    Raises:
        ConfigurationError: the part's extra is not installed.
    """
    require(part.needs, extra=part.extra)
    return [sys.executable, "-m", part.module, *arguments]


def become(name: str, arguments: list[str]) -> None:
    """Replace this process by the part called ``name``."""
    command = command_line(PARTS[name], arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 (no shell: a list of arguments)


def api(context: typer.Context) -> None:
    """Run the HTTP API. Settings come from the environment (DATABASE_URL, REDIS_URL, S3_*, STOKER_*)."""
    become("api", context.args)


def control(context: typer.Context) -> None:
    """Run the control loop: lost leases, due jobs, lanes. Any number of replicas."""
    become("control", context.args)


def node(context: typer.Context) -> None:
    """Run a node: it serves apps with this machine's GPUs, or CPU ranks. Options: 'stoker node --help'."""
    become("node", context.args)


def migrate(context: typer.Context) -> None:
    """Bring the database of DATABASE_URL to the newest schema."""
    become("migrate", context.args)
