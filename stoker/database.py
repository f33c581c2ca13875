"""The connection to Postgres: an engine with our session settings, and transactions in psycopg's own terms.

No statement of the domain stands here. Entry points make one engine each and hand it down. What each job costs goes
over ``prepared`` connections; all else over the engine's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import conninfo
from sqlalchemy import event
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from stoker import stored_json
from stoker.errors import ConfigurationError
from stoker.spare_connections import Connection as Connection
from stoker.spare_connections import SpareConnections, is_disturbed

# A forgotten transaction would keep old row versions alive and slow every heartbeat (13 ms in place of 0.5). One of a
# process that stands still holds its locks: the app's, or that of a lease which somebody waits to take back. Only
# transaction_timeout sees it there: between the statements of a pipeline a session does not count as idle.
SESSION = {
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "10s",
    "transaction_timeout": "12s",
    # Before transaction_timeout, which ends the whole session.
    "statement_timeout": "11s",
    "lock_timeout": "10s",
}
# For statements that find all their rows by key. A plan made while a table was small outlives that, so none may read a
# table from end to end or hash one; and to plan a claim anew takes longer than to carry it out.
PLANNED_ONCE = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
CONNECT_TIMEOUT_S = 5
# Nothing comes back from a host that went without a word: the kernel gives it up within about ten seconds.
NOTICE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
# Which refusals of the server mean "not now" rather than "wrong": connection exceptions, shutdowns, no free connection.
_UNREACHABLE_STATES = ("08", "57P", "53300")
# Which refusals say nothing about what was asked: also a lack of memory or disk, a statement or a lock that took too
# long, a deadlock, a transaction that lost to another, and a server that takes no writes while it changes over.
_PASSING_STATES = ("08", "57P", "53", "57014", "40001", "40P01", "55P03", "25P03", "25P04", "25006")

_SPARE: WeakKeyDictionary[AsyncEngine, SpareConnections] = WeakKeyDictionary()


def driver_url(database_url: str) -> str:
    """``postgresql://`` as SQLAlchemy wants it for psycopg 3.

    Raises:
        ConfigurationError: it is not a postgresql URL.
    """
    try:
        url = make_url(database_url)
    except sa_exc.ArgumentError as error:
        raise ConfigurationError(
            "DATABASE_URL is not a URL", hint="Write postgresql://user:password@host/name."
        ) from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"DATABASE_URL names {url.get_backend_name()!r}, not PostgreSQL",
            hint="Write postgresql://user:password@host/name.",
        )
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def make_engine(database_url: str, *, application_name: str, pool_size: int = 5) -> AsyncEngine:
    """An engine of at most ``pool_size`` + 5 connections and as many prepared ones; none is opened yet."""
    arguments: dict[str, str | int] = {
        "application_name": application_name,
        "connect_timeout": CONNECT_TIMEOUT_S,
        **NOTICE,
    }
    url = driver_url(database_url)
    db = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=5,
        pool_timeout=10,
        json_deserializer=stored_json.loaded,
        hide_parameters=True,  # callers' inputs and results would stand in the log with every error
        connect_args={**arguments, "options": _options(SESSION)},
    )
    event.listen(db.sync_engine, "checkout", _refuse_disturbed)
    dsn = conninfo.make_conninfo(url.replace("+psycopg", "", 1), **arguments, options=_options(SESSION | PLANNED_ONCE))
    _SPARE[db] = spare = SpareConnections(dsn, pool_size)
    event.listen(db.sync_engine, "engine_disposed", lambda _: spare.close())
    return db


def prepared(db: AsyncEngine) -> AbstractAsyncContextManager[Connection]:
    """A connection in autocommit on which each statement is planned once, for those that find their rows by key."""
    return _SPARE[db].one()


@asynccontextmanager
async def reading(db: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for statements that only read, each a transaction by itself.

    A transaction that is not committed ends in a rollback, at which psycopg forgets all that the connection had
    prepared: every statement after it, those of ``transaction`` too, would be parsed and planned anew.
    """
    async with db.connect() as connection:
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")


@asynccontextmanager
async def transaction(db: AsyncEngine) -> AsyncIterator[Connection]:
    """A transaction whose statements are sent without waiting for each other's answers, until one is fetched."""
    async with db.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)  # noqa: S101 (tells mypy what make_engine chose)
        async with driver.pipeline(), driver.transaction():
            yield driver


def _options(settings: dict[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _refuse_disturbed(connection: Any, *_: object) -> None:
    """In place of a ping before each use, which is a round trip."""
    if is_disturbed(connection.driver_connection):
        raise sa_exc.DisconnectionError("the server has ended the session")


def is_unreachable(error: BaseException) -> bool:
    """Whether Postgres could not be reached, as against refusing what it was asked."""
    if isinstance(error, sa_exc.TimeoutError | sa_exc.InterfaceError):
        return True
    if isinstance(error, sa_exc.DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_unreachable(error.orig))
    if isinstance(error, psycopg.OperationalError):
        if error.sqlstate is None:
            # A server that is too old for our settings refuses every connection: no outage, and it will not pass.
            return "unrecognized configuration parameter" not in str(error)
        return error.sqlstate.startswith(_UNREACHABLE_STATES)
    return isinstance(error, psycopg.InterfaceError | ConnectionError)


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may well succeed later: Postgres cannot be reached, or refuses for now.

    Whoever would lose something by giving up asks this; ``is_unreachable`` says which of them are an outage.
    """
    if is_unreachable(error):
        return True
    if isinstance(error, sa_exc.DBAPIError):
        return error.orig is not None and is_passing(error.orig)
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_PASSING_STATES)
