"""``stoker demo|up|down|doctor``: a whole Stoker on this machine. ``stoker.local`` does the work."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stoker.cli import fault, show
from stoker.cli.extras import require
from stoker.cli.options import AsJson
from stoker.local.place import default_data_dir

if TYPE_CHECKING:
    from stoker.local.stack import Options, Running, Stack

EXTRAS = "api,node,local"


def demo(
    *, leave: Annotated[bool, typer.Option("--exit", help="End when the picture is there; else stay up.")] = False
) -> None:
    """Start everything, run one job through it and show how to go on."""
    require("sqlalchemy", extra=EXTRAS)
    from stoker.cli import demo as act

    raise typer.Exit(act.run(leave=leave))


def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready; it stays up.")] = False,
    nodes: Annotated[int, typer.Option(min=0, help="How many nodes.")] = 1,
    world_size: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="Ranks of each app: 2 if left out, or 1 where there is one GPU."),
    ] = None,
    app: Annotated[
        list[str] | None,
        typer.Option(help="Import string of an app; repeatable. Default: text-to-image.", metavar="MODULE:CLASS"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start a local stack: engines, API, control loop and nodes."""
    require("sqlalchemy", extra=EXTRAS)
    from stoker.local import background, stack

    options = _options(nodes, world_size, app)
    if detach:
        _show(background.up(options), as_json=as_json)
        return

    def on_ready(running: Running) -> None:
        _show(running.stack, as_json=as_json)

    stack.run(options, on_ready)


def down(*, as_json: AsJson = False) -> None:
    """End the local stack of this folder, if one runs."""
    require("sqlalchemy", extra=EXTRAS)
    from stoker.local import background

    ended = background.down(default_data_dir(os.environ))
    if as_json:
        show.as_json({"ended": ended})
    else:
        show.line("the stack is down" if ended else "no stack runs from this folder")


def doctor(*, as_json: AsJson = False) -> None:
    """Say what was found on this machine and which version of each engine serves."""
    require("psycopg", extra=EXTRAS)
    from stoker.local import doctor as examiner

    findings = examiner.examine()
    if as_json:
        show.as_json([finding.to_json() for finding in findings])
    else:
        show.as_table(
            ("", "what", "found"), [(finding.mark, finding.name, finding.found) for finding in findings], empty=""
        )
        for finding in findings:
            if finding.hint:
                show.line(f"hint: {finding.hint}")
    if any(finding.is_wrong for finding in findings):
        raise typer.Exit(fault.FAILED)


def _options(nodes: int, world_size: int | None, apps: list[str] | None) -> Options:
    from stoker.local.stack import DEFAULT_APPS, Options

    return Options(
        data_dir=default_data_dir(os.environ),
        apps=tuple(apps or DEFAULT_APPS),
        nodes=nodes,
        world_size=world_size,
    )


def _show(stack: Stack, *, as_json: bool) -> None:
    for warning in stack.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    if as_json:
        show.as_json(stack.to_json())
        return
    # As a shell reads it: eval "$(stoker up --detach)". The engines' addresses are in --json alone: as variables they
    # would make the next stack of this shell use these engines in place of its own.
    show.line(f"export STOKER_API_URL={stack.api_url}")
    show.line(f"export STOKER_API_KEY={stack.api_key}")
