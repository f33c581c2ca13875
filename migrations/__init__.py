"""The database's schema, as Alembic revisions: tables, views for admins, and the role that may read them.

It knows nothing of jobs beyond their shape, and no other package imports it. ``stoker migrate`` and the tests call it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from stoker.database import CONNECT_TIMEOUT_S, driver_url
from stoker.errors import ConfigurationError

OLDEST_SERVER = 170_000  # transaction_timeout
LOCK = 7_307_199_750_218_001  # any number, as long as all who migrate this database ask for the same
WAIT_FOR_OTHERS_S = 120.0  # another process may be migrating: let it end
# All who want a table wait behind us while we wait for it. So we give it up before a lease feels that, leave the table
# to them for a while, and ask again. Longer than deadlock_timeout: only then does an autovacuum make way.
WAIT_FOR_TABLE = "1500ms"
PAUSE_S = 1.0
TRIES = 60
ONE_STATEMENT = "10min"
TOO_LONG = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.QueryCanceled)


def upgrade(database_url: str, revision: str = "head") -> str:
    """Bring the schema to ``revision`` and return where it is. Safe to run twice, and from several places at once."""
    _move(database_url, revision, command.upgrade)
    return current(database_url) or "base"


def downgrade(database_url: str, revision: str) -> None:
    """Take revisions back, with the data that only they can hold."""
    _move(database_url, revision, command.downgrade)


def current(database_url: str) -> str | None:
    """The revision that the database is at; None if it was never migrated."""
    engine = _engine(database_url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def head() -> str:
    """The newest revision of this installation."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    assert revision is not None  # noqa: S101 (there is a first migration)
    return revision


def config() -> Config:
    """Alembic's configuration, with the scripts of this folder."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent))
    return found


def _move(database_url: str, revision: str, go: Callable[[Config, str], None]) -> None:
    engine = _engine(database_url)
    try:
        with engine.connect() as connection:
            version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
            if version < OLDEST_SERVER:
                raise ConfigurationError(
                    f"the server is PostgreSQL {version // 10_000}, Stoker needs {OLDEST_SERVER // 10_000} or newer",
                    hint="Upgrade PostgreSQL first; nothing was changed.",
                )
            connection.rollback()
            _take_turn(connection)
            settings = config()
            settings.attributes["connection"] = connection
            for left in reversed(range(TRIES)):
                # Of the session, which ends with us: a revision is one transaction or several.
                connection.execute(text(f"SET lock_timeout = '{WAIT_FOR_TABLE}'"))
                connection.execute(text(f"SET statement_timeout = '{ONE_STATEMENT}'"))
                connection.commit()
                try:
                    return go(settings, revision)
                except (OperationalError, psycopg.OperationalError) as error:  # a script goes past SQLAlchemy
                    cause = error.orig if isinstance(error, OperationalError) else error
                    if not isinstance(cause, TOO_LONG):
                        raise
                    if not left or isinstance(cause, psycopg.errors.QueryCanceled):
                        raise ConfigurationError(
                            f"a migration found no end of waiting: {str(cause).strip()}",
                            hint="See in pg_stat_activity which transaction is old, end it, and migrate again: "
                            "that goes on where this stopped.",
                        ) from error
                connection.rollback()
                time.sleep(PAUSE_S)  # whoever was behind us is served now
    finally:
        engine.dispose()


def _take_turn(connection: Connection) -> None:
    """Be the only one who migrates, as long as the session lasts.

    Not by waiting for the lock: a statement that waits is an open transaction, and an index that is built
    concurrently waits for those.
    """
    give_up_at = time.monotonic() + WAIT_FOR_OTHERS_S
    while not connection.execute(text(f"SELECT pg_try_advisory_lock({LOCK})")).scalar_one():
        connection.rollback()
        if time.monotonic() > give_up_at:
            raise ConfigurationError(
                "another process is migrating this database",
                hint="Wait for its end; pg_stat_activity names it 'stoker-migrate'. Nothing was changed.",
            )
        time.sleep(0.1)
    connection.commit()


def _engine(database_url: str) -> Engine:
    return create_engine(
        driver_url(database_url),
        poolclass=NullPool,
        connect_args={"application_name": "stoker-migrate", "connect_timeout": CONNECT_TIMEOUT_S},
    )
