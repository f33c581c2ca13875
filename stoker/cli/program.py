"""The table of commands: which verb is which function. No verb does anything here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Annotated

import typer

from stoker.cli import certs, jobs, keys, local, nodes, processes, queues, show, sql, tenants, webhooks

VERBS: dict[str, Callable[..., None]] = {
    "demo": local.demo,
    "up": local.up,
    "down": local.down,
    "doctor": local.doctor,
    "submit": jobs.submit,
    "status": jobs.status,
    "events": jobs.events,
    "result": jobs.result,
    "cancel": jobs.cancel,
    "jobs": jobs.list_jobs,
    "apps": jobs.apps,
    "nodes": nodes.list_nodes,
    "sql": sql.sql,
    "certs": certs.certs,
}
PARTS: dict[str, Callable[[typer.Context], None]] = {
    "api": processes.api,
    "control": processes.control,
    "node": processes.node,
    "migrate": processes.migrate,
}

program = typer.Typer(
    name="stoker",
    help="A self-hosted queue for warm multi-GPU models.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for name, verb in VERBS.items():
    program.command(name)(verb)
for name, part in PARTS.items():
    # Their --help is the part's own.
    program.command(name, context_settings=processes.PASS_ON, add_help_option=False)(part)
program.add_typer(keys.keys, name="keys")
program.add_typer(queues.queues, name="queues")
program.add_typer(tenants.tenants, name="tenants")
program.add_typer(webhooks.webhooks, name="webhooks")


@program.callback(invoke_without_command=True)
def base(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Write the version.")] = False,
) -> None:
    """A self-hosted queue for warm multi-GPU models."""
    if version:
        show.line(f"stoker {metadata.version('stoker')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        show.line(context.get_help())
