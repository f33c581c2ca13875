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
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.database import Connection, prepared

Step = tuple[str, Mapping[str, Any]]
"""A statement's name and its values."""
UNDO = b"SELECT 1/0"


@cache
def statement(name: str) -> bytes:
    """The text of ``name``.sql, without what is no statement: psycopg keeps what it has parsed, if it is short.

    ``name+variant`` has the lines behind ``--variant`` in it, too.
    """
    name, _, variant = name.partition("+")
    text = files(__name__).joinpath(f"{name}.sql").read_text()
    lines = (line.strip().removeprefix(f"--{variant} ") if variant else line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line and not line.startswith("--")).encode()


async def run(tx: Connection, name: str, values: Mapping[str, Any]) -> AsyncCursor[DictRow]:
    """Send ``name``.sql; its answer need not be here yet."""
    return await tx.cursor(row_factory=dict_row).execute(statement(name), values)


async def row(tx: Connection, name: str, values: Mapping[str, Any]) -> DictRow | None:
    """The first row of ``name``.sql's answer."""
    return await (await run(tx, name, values)).fetchone()


async def rows(tx: Connection, name: str, values: Mapping[str, Any]) -> list[DictRow]:
    """All rows of ``name``.sql's answer."""
    return await (await run(tx, name, values)).fetchall()


async def at_once(db: AsyncEngine, *steps: Step) -> list[list[DictRow]]:
    """A transaction of statements that are all known beforehand, in one round trip; the rows of each.

    Locks that it takes are held for no longer than the server needs. What is sent before a pipeline's one Sync is a
    transaction: it begins with the first statement, the Sync commits it, and an error undoes all of it.
    """
    async with prepared(db) as connection:
        async with connection.pipeline():
            try:
                answers = [
                    await connection.cursor(row_factory=dict_row).execute(statement(name), values, prepare=True)
                    for name, values in steps
                ]
            except BaseException:
                # A value that cannot be sent, or a cancel in the midst of it: the Sync would commit what was sent.
                await connection.execute(UNDO)
                raise
        return [await _rows(answer) for answer in answers]


async def ask(db: AsyncEngine, name: str, values: Mapping[str, Any]) -> list[DictRow]:
    """One statement, a transaction by itself; its rows."""
    async with prepared(db) as connection:
        answer = await connection.cursor(row_factory=dict_row).execute(statement(name), values, prepare=True)
        return await _rows(answer)


async def _rows(answer: AsyncCursor[DictRow]) -> list[DictRow]:
    return await answer.fetchall() if answer.description else []
