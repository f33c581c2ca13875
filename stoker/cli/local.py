"""``stoker demo|up|down|doctor``: a whole Stoker on this machine. ``stoker.local`` does the work."""

from __future__ import annotations

from typing import Annotated

import typer

from stoker.cli import show
from stoker.cli.extras import require
from stoker.cli.options import AsJson


def demo(
    *,
    leave: Annotated[
        bool, typer.Option("--exit", help="End when the picture is there, instead of staying up.")
    ] = False,
) -> None:
    """Start everything, run one job through it and show how to go on."""
    require("sqlalchemy", extra="api,node,local")
    from stoker.cli import demo as act

    raise typer.Exit(act.run(leave=leave))


def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready; it stays up.")] = False,
    nodes: Annotated[int, typer.Option(min=0, help="How many nodes.")] = 1,
    world_size: Annotated[int, typer.Option(min=1, help="Ranks of each node's slots.")] = 2,
    app: Annotated[
        list[str] | None, typer.Option(help="Import string of an app to serve; repeatable.", metavar="MODULE:CLASS")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start a local stack: engines, API, control loop and nodes."""
    require("sqlalchemy", extra="api,node,local")
    from stoker.local import stack

    stack.up(detach=detach, nodes=nodes, world_size=world_size, apps=tuple(app or ()), as_json=as_json)


def down() -> None:
    """End the local stack of this folder, if it runs."""
    from stoker.local import stack

    show.line("the local stack is down" if stack.down() else "no local stack runs from this folder")


def doctor(*, as_json: AsJson = False) -> None:
    """Say what was found on this machine and which version of each engine serves."""
    require("psycopg", extra="api,local")
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
        raise typer.Exit(1)
