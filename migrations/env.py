"""What Alembic runs: the migrations in one transaction, on the connection that it is given or on DATABASE_URL."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from stoker.database import driver_url
from stoker.tables import metadata


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:  # the alembic command of somebody who writes a revision
    with create_engine(driver_url(os.environ["DATABASE_URL"]), poolclass=NullPool).begin() as own:
        run(own)
