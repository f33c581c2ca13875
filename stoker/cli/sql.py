"""``stoker sql``: ask the database, in psql, by a query or by the name of one.

It can only read: changes go through the API, or through the functions of docs/admin-sql.md in a psql of one's own.
"""

from __future__ import annotations

import os
import shutil
from typing import Annotated

import typer

from stoker.cli import show
from stoker.cli.address import find_database
from stoker.cli.extras import require
from stoker.cli.options import AsJson
from stoker.cli.questions import QUESTIONS
from stoker.errors import EngineError, InvalidRequest, Unavailable

READ_ONLY = "-c default_transaction_read_only=on -c statement_timeout=30s -c timezone=UTC"
VIEWS = (
    "v_queue_depth, v_jobs, v_attempts, v_queue_wait, v_throughput_hourly, v_gpu_seconds, v_failures, v_nodes, "
    "v_stuck_jobs, v_queue_positions, v_job_children, v_job_trees, v_usage, v_deliveries, v_audit, v_requests, "
    "v_invariants"
)


def sql(
    statement: Annotated[
        str | None,
        typer.Argument(
            help=f"One SELECT, or a name: {', '.join(QUESTIONS)}. Without it psql is opened. The views: {VIEWS}."
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask the database (DATABASE_URL, else the local stack's): run a query and write its rows, or open psql."""
    require("psycopg", extra="api")
    import psycopg

    if statement is None:
        _open_psql(find_database())
        return
    try:
        with (
            psycopg.connect(find_database(), options=READ_ONLY, connect_timeout=5) as connection,
            connection.execute(QUESTIONS.get(statement, statement).encode()) as answer,
        ):
            columns = [column.name for column in answer.description or ()]
            rows = answer.fetchall() if columns else []
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise Unavailable(
                f"the database cannot be reached: {str(error).splitlines()[0]}",
                hint="Check DATABASE_URL, or start a local stack with 'stoker up --detach'.",
            ) from error
        message = error.diag.message_primary or str(error)
        hint = f"The views are {VIEWS}. Questions with a name: {', '.join(QUESTIONS)}."
        raise InvalidRequest(f"the database refused: {message}", hint=hint) from error
    if as_json:
        show.as_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        show.as_table(columns, rows, empty="No rows.")


def _open_psql(database_url: str) -> None:
    """Become psql. Where it connects to stands in its environment: everybody may read a process's arguments."""
    from psycopg.conninfo import conninfo_to_dict

    named = {"dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}
    named |= {name: f"PG{name.upper()}" for name in ("host", "port", "user", "password")}
    given = {named[name]: str(value) for name, value in conninfo_to_dict(database_url).items() if name in named}
    program = shutil.which("psql") or _psql_beside_postgres()
    os.execve(program, [program], {**os.environ, **given, "PGOPTIONS": READ_ONLY})  # noqa: S606 - no shell is wanted


def _psql_beside_postgres() -> str:
    from stoker.local.binaries import POSTGRES, find

    try:
        return str(find(POSTGRES, os.environ).path.with_name("psql"))
    except EngineError as error:
        raise InvalidRequest(
            "psql is not installed", hint="Install PostgreSQL's client, or give one query: stoker sql 'select ...'."
        ) from error
