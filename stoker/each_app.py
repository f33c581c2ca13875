"""Sweeps: find rows of all apps without a lock, then act on them app by app, each in a transaction of its own.

What is wrong with one app's rows holds no other app up. It decides nothing: ``stoker.jobs`` says what to find and what
to do.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.rows import DictRow
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import sql
from stoker.database import Connection, transaction

T = TypeVar("T")

log = logging.getLogger(__name__)


async def each_app(
    db: AsyncEngine,
    find: str,
    values: Mapping[str, Any],
    act: Callable[[Connection, list[DictRow]], Awaitable[list[T]]],
) -> list[T]:
    """Act on what ``find`` finds, behind each app's lock; what was done, all apps together.

    An app's error is logged. It is raised only if nothing at all was done, so that callers hear of an outage.
    """
    async with transaction(db) as tx:
        rows = await sql.rows(tx, find, values)
    by_app = defaultdict(list)
    for row in rows:
        by_app[row["app_id"]].append(row)
    done: list[T] = []
    failure: Exception | None = None
    for app_id, found in sorted(by_app.items()):
        try:
            async with transaction(db) as tx:
                await sql.run(tx, "lock_app", {"app_id": app_id})
                acted = await act(tx, found)
        except (psycopg.Error, SQLAlchemyError) as error:
            log.exception("an app's jobs were left as they are", extra={"app_id": str(app_id), "found_by": find})
            failure = error
        else:
            done += acted
    if failure is not None and not done:
        raise failure
    return done
