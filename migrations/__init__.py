"""The database's schema, as Alembic revisions: tables, views for admins, and the role that may read them.

It knows nothing of jobs beyond their shape, and no other package imports it. ``stoker migrate`` and the tests call it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from stoker.database import CONNECT_TIMEOUT_S, driver_url
from stoker.errors import ConfigurationError

OLDEST_SERVER = 170_000  # transaction_timeout
LOCK = 7_307_199_750_218_001  # any number, as long as all who migrate this database ask for the same
WAIT_FOR_OTHERS = "120s"  # another process may be migrating: let it end
WAIT_FOR_TABLES = "10s"  # rather fail than hold up every job behind our wait for a table
ONE_STATEMENT = "10min"


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
            # Of the session, which ends with us: each revision is a transaction of its own.
            connection.execute(text(f"SET lock_timeout = '{WAIT_FOR_OTHERS}'"))
            connection.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
            connection.execute(text(f"SET lock_timeout = '{WAIT_FOR_TABLES}'"))
            connection.execute(text(f"SET statement_timeout = '{ONE_STATEMENT}'"))
            connection.commit()
            settings = config()
            settings.attributes["connection"] = connection
            go(settings, revision)
    finally:
        engine.dispose()


def _engine(database_url: str) -> Engine:
    return create_engine(
        driver_url(database_url),
        poolclass=NullPool,
        connect_args={"application_name": "stoker-migrate", "connect_timeout": CONNECT_TIMEOUT_S},
    )
