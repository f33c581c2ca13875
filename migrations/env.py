"""What Alembic runs: each migration in a transaction of its own, on the connection that it is given or on DATABASE_URL.

The locks that one takes on a table are gone before the next one begins: a heartbeat waits for no more than it. So a
migration locks one table that is in use and touches none of its rows; those that read or write rows lock no table.
"""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

import migrations
from stoker.database import driver_url
from stoker.tables import metadata


def run(connection: Connection) -> None:
    def prepare_next(*_: object, **__: object) -> None:
        """A revision that takes its time leaves nothing of that to the one after it, which may lock a table."""
        connection.exec_driver_sql(f"SET lock_timeout = '{migrations.WAIT_FOR_TABLE}'")

    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=True,
        transaction_per_migration=True,
        on_version_apply=prepare_next,
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:  # the alembic command of somebody who writes a revision
    with create_engine(driver_url(os.environ["DATABASE_URL"]), poolclass=NullPool).connect() as own:
        run(own)
