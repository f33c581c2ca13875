"""psycopg connections that are kept between uses, without SQLAlchemy around them.

What is done with each job goes over them: SQLAlchemy's way to a connection and back takes more of the processor than
most of our statements. ``stoker.database`` holds one pool an engine and says with which settings.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.types.json import set_json_loads
from sqlalchemy import exc as sa_exc

from stoker import stored_json

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

WAIT_S = 10.0


class SpareConnections:
    """At most ``limit`` at a time, each one caller's. One that comes back in the middle of something is closed."""

    def __init__(self, dsn: str, limit: int) -> None:
        self._dsn, self._limit = dsn, limit
        self._free = asyncio.Semaphore(limit)
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """One for the time of the context.

        Raises:
            psycopg.OperationalError: the server cannot be reached.
            sqlalchemy.exc.TimeoutError: all are in use, for long.
        """
        await self._wait()
        try:
            # The one used last, so that few of them are used, and those have all their statements prepared.
            connection = self._take() or await self._open()
            try:
                yield connection
            finally:
                if _is_clean(connection):
                    self._idle.append(connection)
                else:
                    await connection.close()
        finally:
            self._free.release()

    def close(self) -> None:
        """Close those that are not in use; new ones are opened when they are asked for."""
        for connection in self._idle:
            connection.pgconn.finish()
        self._idle.clear()

    async def _wait(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise sa_exc.TimeoutError(f"none of {self._limit} connections became free within {WAIT_S:g} s") from error

    async def _open(self) -> Connection:
        connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        set_json_loads(stored_json.loaded, connection)
        return connection

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not is_disturbed(connection):
                return connection
            connection.pgconn.finish()
        return None


def is_disturbed(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether an idle session has been ended, or has something to say: a server that goes tells it so."""
    if connection.closed:
        return True
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def _is_clean(connection: Connection) -> bool:
    state = connection.pgconn
    return state.transaction_status == TransactionStatus.IDLE and state.pipeline_status == PipelineStatus.OFF
