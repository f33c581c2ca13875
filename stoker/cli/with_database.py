"""Commands that work on the database itself: they need DATABASE_URL (or the local stack's) and no running API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from stoker.cli.address import find_database
from stoker.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


def with_database(act: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    """Run ``act`` on the database.

    Raises:
        Unavailable: it cannot be reached.
    """
    import psycopg

    from stoker import database

    engine = database.make_engine(find_database(), application_name="stoker-cli", pool_size=1)

    async def run() -> T:
        try:
            return await act(engine)
        finally:
            await engine.dispose()

    try:
        return asyncio.run(run())
    except Exception as error:
        if database.is_unreachable(error):
            raise Unavailable(
                f"the database cannot be reached: {str(error).splitlines()[0]}",
                hint="Check DATABASE_URL, or start a local stack with 'stoker up --detach'.",
            ) from error
        if isinstance(getattr(error, "orig", error), psycopg.errors.UndefinedTable):
            raise ConfigurationError("the database has no tables of Stoker", hint="Run 'stoker migrate'.") from error
        raise
