"""Empty databases for tests, each a copy of one migrated template."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg

import migrations
from stoker.local.engines import Engines

_template_lock = threading.Lock()


@contextmanager
def fresh_database(engines: Engines, *, migrated: bool = True, template: str | None = None) -> Iterator[str]:
    """The URL of a database of one's own, dropped at the end, with the sessions that are still open on it."""
    name = f"test_{uuid4().hex[:16]}"
    template = template or (_template(engines) if migrated else "template0")
    _run(engines, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield _url(engines, name)
    finally:
        _run(engines, f'DROP DATABASE "{name}" WITH (FORCE)')


def _template(engines: Engines) -> str:
    """The migrated template of this session, made at its first use."""
    name = f"template_{migrations.head()}"
    with _template_lock, psycopg.connect(_url(engines, "postgres"), autocommit=True) as connection:
        made = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if not made:
            fresh = f"{name}_new"
            connection.execute(f'DROP DATABASE IF EXISTS "{fresh}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{fresh}"')
            migrations.upgrade(_url(engines, fresh))
            connection.execute(f'ALTER DATABASE "{fresh}" RENAME TO "{name}"')
    return name


def _run(engines: Engines, statement: str) -> None:
    with psycopg.connect(_url(engines, "postgres"), autocommit=True) as connection:
        connection.execute(statement)


def _url(engines: Engines, database: str) -> str:
    return engines.database_url.rsplit("/", 1)[0] + "/" + database
