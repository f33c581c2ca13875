"""Compiled: a SELECT that is written once with SQLAlchemy and asked often, without it.

Its text is made when its module is imported; it goes over the connections on which statements are planned once, so it
must find its rows by key. ``stoker.job_queries`` has those that callers poll.
"""

from __future__ import annotations

from typing import Any

from psycopg.rows import DictRow, dict_row
from sqlalchemy import Select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.database import prepared

DIALECT = make_url("postgresql+psycopg://").get_dialect()()


class Compiled:
    """``bindparam`` of the statement are the values to ask with."""

    def __init__(self, statement: Select[Any]) -> None:
        compiled = statement.compile(dialect=DIALECT)
        # psycopg keeps what it has parsed, if it is short.
        self._text = " ".join(str(compiled).split()).encode()
        self._values: dict[str, Any] = dict(compiled.params)

    async def ask(self, db: AsyncEngine, **values: Any) -> list[DictRow]:
        """Its rows, as they are now."""
        async with prepared(db) as connection:
            answer = await connection.cursor(row_factory=dict_row).execute(
                self._text, {**self._values, **values}, prepare=True
            )
            return await answer.fetchall()
