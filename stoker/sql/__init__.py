"""The statements that change a job's state, one a file, with psycopg's ``%(name)s`` parameters.

They hold no decision: ``stoker.jobs`` and ``stoker.lanes`` choose what happens, these say it to Postgres.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row

from stoker.database import Connection


@cache
def statement(name: str) -> bytes:
    """The text of ``name``.sql."""
    return files(__name__).joinpath(f"{name}.sql").read_bytes()


async def run(tx: Connection, name: str, values: Mapping[str, Any]) -> AsyncCursor[DictRow]:
    """Send ``name``.sql; its answer need not be here yet."""
    return await tx.cursor(row_factory=dict_row).execute(statement(name), values)


async def row(tx: Connection, name: str, values: Mapping[str, Any]) -> DictRow | None:
    """The first row of ``name``.sql's answer."""
    return await (await run(tx, name, values)).fetchone()


async def rows(tx: Connection, name: str, values: Mapping[str, Any]) -> list[DictRow]:
    """All rows of ``name``.sql's answer."""
    return await (await run(tx, name, values)).fetchall()
