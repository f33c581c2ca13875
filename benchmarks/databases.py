"""Databases of a benchmark's own: one on a server that runs, or a durable server for the time of the run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg

from stoker.local import place
from stoker.local.engines import start_engines


@contextmanager
def own_database(server_url: str) -> Iterator[str]:
    """A fresh one, dropped at the end."""
    name = f"bench_{uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield server_url.rsplit("/", 1)[0] + "/" + name
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """A PostgreSQL of one's own, durable, unless there is one."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder:
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        data.mkdir()
        with start_engines(data) as engines:
            yield engines.database_url
        place.discard(data)


def fill(url: str, script: str, values: Mapping[str, object]) -> None:
    """Run statements that make many rows, then have the planner know of them.

    Triggers would check each reference; what is filled in is right by its making.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET synchronous_commit = off")
        for statement in filter(str.strip, script.split(";")):
            has_values = "%(" in statement
            text = statement if has_values else statement.replace("%%", "%")
            connection.execute(text.encode(), values if has_values else None)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


async def timed(n: int, act: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of each of ``n`` calls."""
    taken = []
    for _ in range(n):
        began = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - began) * 1000)
    return taken
