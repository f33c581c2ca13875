"""The engine: its session settings, and what counts as unreachable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import psycopg
import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker import keys, sql, tenants
from stoker.database import (
    PLANNED_ONCE,
    SESSION,
    is_passing,
    is_unreachable,
    make_engine,
    prepared,
    reading,
    transaction,
)
from stoker.errors import ConfigurationError
from stoker.ids import new_id
from tests.support.job_world import World

pytestmark = pytest.mark.anyio


async def test_sessions_have_our_time_limits_and_our_name(database_url: str) -> None:
    db = make_engine(database_url, application_name="stoker-test")
    async with db.connect() as connection:
        for name, value in SESSION.items():
            assert (await connection.execute(text(f"SHOW {name}"))).scalar_one() == value
        assert (await connection.execute(text("SHOW application_name"))).scalar_one() == "stoker-test"
    await db.dispose()


async def test_a_transaction_that_fails_leaves_nothing_and_the_connection_usable(database_url: str) -> None:
    db = make_engine(database_url, application_name="test", pool_size=1)

    async def insert_twice() -> None:
        async with transaction(db) as tx:
            for _ in range(2):
                await tx.execute("INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'same')")

    with pytest.raises(psycopg.errors.UniqueViolation):
        await insert_twice()
    async with transaction(db) as tx:
        assert await (await tx.execute("SELECT count(*) FROM tenants")).fetchone() == (0,)
    await db.dispose()


async def test_what_cannot_be_sent_whole_is_not_done_in_part(world: World) -> None:
    first, second = world.new_job().row(), world.new_job(tags=("no text of Postgres\0",)).row()

    with pytest.raises(psycopg.DataError):
        await sql.at_once(world.db, ("make_lane", first), ("submit", first), ("submit", second))

    assert await world.value("SELECT count(*) FROM jobs") == 0
    await world.submit()  # over the same connection


async def test_a_read_leaves_what_its_connection_has_prepared(database_url: str) -> None:
    db = make_engine(database_url, application_name="test", pool_size=1)
    for number in range(10):  # psycopg prepares a statement that it has sent a few times
        async with transaction(db) as tx:
            await tx.execute("SELECT %s::int", [number])

    async with reading(db) as connection:
        await connection.execute(text("SELECT 1"))

    async with transaction(db) as tx:
        kept = await tx.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int%%'")
        assert await kept.fetchone() == (1,)
    await db.dispose()


async def test_after_a_read_the_same_connection_has_transactions_again(database_url: str) -> None:
    db = make_engine(database_url, application_name="test", pool_size=1)
    async with reading(db) as connection:
        await connection.execute(text("SELECT 1"))

    async with db.connect() as connection:
        await connection.execute(text("INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'not committed')"))

    async with reading(db) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM tenants"))).scalar_one() == 0
    await db.dispose()


async def test_a_prepared_connection_has_the_same_limits_and_plans_once(database_url: str) -> None:
    db = make_engine(database_url, application_name="stoker-test")

    async with prepared(db) as connection:
        for name, value in {**SESSION, **PLANNED_ONCE, "application_name": "stoker-test"}.items():
            assert await (await connection.execute(f"SHOW {name}")).fetchone() == (value,)
    await db.dispose()


async def test_what_is_sent_at_once_is_one_transaction_and_leaves_nothing_where_a_part_of_it_fails(
    database_url: str,
) -> None:
    db = make_engine(database_url, application_name="test", pool_size=1)
    key = await keys.create(db, scopes=frozenset({"run"}))
    lane = {"version_id": new_id(), "uses_gpus": True, "tenant_id": key.tenant_id, "action": "x", "by_tenant": None}
    limits = {"weight": 2.0, "max_running": 1, "max_requests_per_s": None, "max_waiting": None}
    audit = {"tenant_id": key.tenant_id, "name": "default", "by_key": None} | limits | lane
    broken = {"app_id": "no uuid"}

    with pytest.raises(psycopg.Error):
        await sql.at_once(db, ("set_tenant", audit), ("lock_app", broken))
    assert [tenant.limits.weight for tenant in await tenants.list_tenants(db)] == [1.0]

    await sql.at_once(db, ("set_tenant", audit), ("lock_app", {"app_id": lane["version_id"]}))
    assert [tenant.limits.weight for tenant in await tenants.list_tenants(db)] == [2.0]
    async with prepared(db) as connection:
        locks = await connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert await locks.fetchone() == (0,)
    await db.dispose()


async def test_a_connection_that_comes_back_in_the_middle_of_something_is_not_used_again(database_url: str) -> None:
    db = make_engine(database_url, application_name="test", pool_size=1)
    async with prepared(db) as connection:
        first = connection.info.backend_pid
    async with prepared(db) as connection:
        assert connection.info.backend_pid == first
        await connection.execute("BEGIN")

    async with prepared(db) as connection:
        assert connection.info.backend_pid != first
    await db.dispose()


@pytest.mark.parametrize("use", [prepared, transaction])
async def test_a_session_that_ended_while_nobody_used_it_is_not_handed_out(
    database_url: str, use: Callable[[AsyncEngine], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]
) -> None:
    db = make_engine(database_url, application_name="test", pool_size=1)
    async with use(db) as connection:
        first = connection.info.backend_pid
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s, 10000)", [first])

    async with use(db) as connection:
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
    await db.dispose()


async def test_who_asks_for_a_connection_while_all_are_in_use_waits_for_one(database_url: str) -> None:
    db = make_engine(database_url, application_name="test", pool_size=1)
    async with prepared(db) as connection:
        first = connection.info.backend_pid
        waiting = asyncio.create_task(sql.ask(db, "find_key", {"key_id": "none"}))
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
        assert not waiting.done()

    assert await waiting == []
    async with prepared(db) as connection:
        assert connection.info.backend_pid == first
    await db.dispose()


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    db = make_engine("postgresql://x:y@127.0.0.1:1/z", application_name="test")

    for use in (transaction(db), prepared(db), db.connect()):
        with pytest.raises(Exception) as caught:  # noqa: PT011 (either library's)
            async with use:
                pass
        assert is_unreachable(caught.value)


async def test_a_session_that_the_server_ended_is_unreachable_and_the_next_one_works(database_url: str) -> None:
    db = make_engine(database_url, application_name="test", pool_size=1)

    with pytest.raises(psycopg.OperationalError) as caught:
        async with transaction(db) as tx:
            await (await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")).fetchone()

    assert is_unreachable(caught.value)
    async with transaction(db) as tx:
        assert await (await tx.execute("SELECT 1")).fetchone() == (1,)
    await db.dispose()


@pytest.mark.parametrize(
    "query", ["SELECT 1 / 0", "SELECT * FROM nothing", "SET statement_timeout = 1; SELECT pg_sleep(1)"]
)
async def test_a_refusal_is_not_unreachable(database_url: str, query: str) -> None:
    db = make_engine(database_url, application_name="test")

    with pytest.raises(psycopg.Error) as caught:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(query)

    assert not is_unreachable(caught.value)
    assert not is_unreachable(ValueError())
    assert is_unreachable(exc.TimeoutError("the pool is empty"))
    await db.dispose()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite://"])
def test_a_url_that_is_not_postgres_is_a_mistake_in_the_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError):
        make_engine(url, application_name="test")


PASSING = [
    "SET statement_timeout = 1; SELECT pg_sleep(1)",
    "SET transaction_read_only = on; CREATE TABLE something ()",
    *(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$"
      for state in ("53100", "53200", "57014", "40001", "40P01", "55P03", "25P03", "25P04")),
]  # fmt: skip


@pytest.mark.parametrize("query", PASSING)
async def test_a_refusal_for_now_is_passing(database_url: str, query: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(query)

    assert is_passing(caught.value)
    assert is_passing(exc.DBAPIError("x", None, caught.value))


async def test_a_server_that_does_not_know_our_settings_is_not_an_outage(database_url: str) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        await psycopg.AsyncConnection.connect(database_url, options="-c a_setting_of_tomorrow=1")

    assert not is_unreachable(caught.value)
    assert not is_passing(caught.value)


@pytest.mark.parametrize("query", ["SELECT 1 / 0", "SELECT * FROM nothing"])
async def test_a_refusal_for_good_is_not_passing(database_url: str, query: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(query)

    assert not is_passing(caught.value)
    assert not is_passing(ValueError())
    assert is_passing(exc.TimeoutError("the pool is empty"))


async def test_an_error_does_not_repeat_the_values_of_its_statement(database_url: str) -> None:
    db = make_engine(database_url, application_name="test")

    with pytest.raises(exc.DBAPIError) as caught:
        async with db.connect() as connection:
            await connection.execute(text("SELECT * FROM nothing WHERE x = :secret"), {"secret": "s3cret"})
    await db.dispose()

    assert "s3cret" not in str(caught.value)
