"""How commands write what they found: JSON for programs, a table for people, both on standard output.

Progress and errors go to standard error, so that a pipe holds nothing but the answer.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def as_json(value: Any) -> None:
    """One JSON document, indented on a terminal and on one line in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    line(json.dumps(value, indent=indent, ensure_ascii=False, default=str))


def as_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table whose cells are written as they are; ``empty`` is said on standard error when it has no row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    if not table.row_count:
        sys.stderr.write(f"{empty}\n")
        return
    if sys.stdout.isatty():
        Console().print(table)
        return
    # In a pipe a row stays one line, however wide, without the spaces that only fill a screen.
    drawn = Console(file=io.StringIO(), width=100_000)
    with drawn.capture() as captured:
        drawn.print(table)
    for row in captured.get().splitlines():
        line(row.rstrip())


def line(text: str) -> None:
    """One line of the answer, at once: someone may be waiting for it in a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
