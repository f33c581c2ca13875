"""``stoker sql``: ask the database, where no psql is at hand. It can only read: changes go through the API."""

from __future__ import annotations

from typing import Annotated

import typer

from stoker.cli import show
from stoker.cli.address import find_database
from stoker.cli.extras import require
from stoker.cli.options import AsJson
from stoker.errors import InvalidRequest, Unavailable

READ_ONLY = "-c default_transaction_read_only=on -c statement_timeout=30s -c timezone=UTC"
VIEWS = (
    "v_queue_depth, v_jobs, v_attempts, v_queue_wait, v_throughput_hourly, v_gpu_seconds, v_failures, v_nodes, "
    "v_stuck_jobs, v_queue_positions, v_job_children, v_job_trees, v_usage, v_invariants"
)


def sql(
    statement: Annotated[str, typer.Argument(help=f"One SELECT. The views for it: {VIEWS}.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Run a query on the database (DATABASE_URL, else the local stack's) and write its rows."""
    require("psycopg", extra="api")
    import psycopg

    try:
        with (
            psycopg.connect(find_database(), options=READ_ONLY, connect_timeout=5) as connection,
            connection.execute(statement.encode()) as answer,
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
        raise InvalidRequest(f"the database refused: {message}", hint=f"The views are {VIEWS}.") from error
    if as_json:
        show.as_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        show.as_table(columns, rows, empty="No rows.")
