"""``stoker nodes``: which nodes there are, what their runners hold and do, from the database itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stoker.cli import show
from stoker.cli.extras import require
from stoker.cli.options import AsJson
from stoker.cli.with_database import with_database

if TYPE_CHECKING:
    from stoker.nodes import NodeRow, RunnerRow


def list_nodes(
    *,
    all_: Annotated[bool, typer.Option("--all", help="Those that have stopped, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List nodes with their slots and runners."""
    require("sqlalchemy", extra="api")
    from stoker import nodes

    found = [node for node in with_database(nodes.list_nodes) if all_ or node.state != "stopped"]
    if as_json:
        show.as_json([asdict(node) for node in found])
        return
    show.as_table(
        ("node", "state", "running", "slots", "app", "runner", "holds", "last used"),
        [row for node in found for row in _rows(node)],
        empty="No node has registered.",
    )


def _rows(node: NodeRow) -> list[tuple[object, ...]]:
    """A row a runner; a node's own columns stand in its first."""
    state = node.state if node.is_live or node.state == "stopped" else f"{node.state}, silent"
    first = (node.node_id, state, node.running, node.slots)
    runners = [_runner(runner) for runner in node.runners] or [("", "", "", "")]
    return [(*(first if number == 0 else ("", "", "", "")), *rest) for number, rest in enumerate(runners)]


def _runner(runner: RunnerRow) -> tuple[object, ...]:
    until = runner.quarantined_until
    state = runner.state if until is None else f"{runner.state} until {until:%H:%M:%S}"
    used_at = "" if runner.used_at is None else f"{runner.used_at:%m-%d %H:%M:%S}"
    return runner.app, state, " ".join(map(str, runner.slots)), used_at
