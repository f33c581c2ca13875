"""What the roles of docs/admin-sql.md may do, and what the functions for admins do and write down."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import text

from stoker.local.engines import Engines
from tests.support.job_world import USER_ERROR, World

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "admin-sql.md"

HOSTILE = [
    "SELECT * FROM jobs",
    "SELECT * FROM signing_keys",
    "SELECT secret_sha256 FROM api_keys",
    "SELECT input FROM v_jobs",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/x')",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "SET ROLE stoker",
    "SET SESSION AUTHORIZATION stoker",
    "CREATE TABLE mine (id int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION dblink",
    "UPDATE v_requests SET done_at = now()",
    "DELETE FROM v_audit",
    "INSERT INTO v_requests (action, target) VALUES ('cancel', 'x')",
    "SELECT stoker_ask('cancel', gen_random_uuid())",
    "SELECT stoker_set_paused('acme/echo', true)",
    "DROP VIEW v_jobs",
    "ALTER SYSTEM SET work_mem = '1GB'",
]
ACTS = [
    "SELECT stoker_cancel(gen_random_uuid())",
    "SELECT stoker_retry(gen_random_uuid())",
    "SELECT stoker_retry_failed('acme/echo', now())",
    "SELECT stoker_pause('acme/echo')",
    "SELECT stoker_resume('acme/echo')",
    "SELECT stoker_drain('n1')",
    "SELECT stoker_redeliver(gen_random_uuid())",
]


@pytest.fixture
def logins(engines: Engines, database_url: str, world: World) -> Iterator[dict[str, str]]:
    """A login of each role, made by the document's own statements: the URL by the role's name."""
    made = {}
    with psycopg.connect(database_url, autocommit=True) as owner:
        for block in re.findall(r"```sql\n(CREATE ROLE .*?)```", PAGE.read_text(), re.DOTALL):
            name = f"test_{uuid4().hex[:12]}"
            [example] = re.findall(r"CREATE ROLE (\w+)", block)
            [role] = re.findall(r"IN ROLE (\w+)", block)
            owner.execute(re.sub(rf"\b{example}\b", name, block).encode())
            made[role] = f"postgresql://{name}:choose%20one@{database_url.rsplit('@', 1)[1]}"
        yield made
        for url in made.values():
            owner.execute(f"DROP ROLE {url.split('//')[1].split(':')[0]}")


@asynccontextmanager
async def session(url: str) -> AsyncIterator[psycopg.AsyncConnection[dict[str, Any]]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


async def audited(world: World) -> list[tuple[str, str, str]]:
    rows = await world.rows("SELECT action, target, role FROM v_audit WHERE action <> 'key.create' ORDER BY id")
    return [(row["action"], row["target"], row["role"]) for row in rows]


async def test_who_may_read_reads_the_views_for_some_seconds_and_does_nothing_else(
    world: World, logins: dict[str, str]
) -> None:
    await world.submit()

    async with session(logins["stoker_readonly"]) as reader:
        seen = await (await reader.execute("SELECT state FROM v_jobs")).fetchall()
        limits = await (await reader.execute("SHOW statement_timeout")).fetchall()
        await reader.execute("SET default_transaction_read_only = off")  # a guard, and not what holds
        for statement in [*HOSTILE, *ACTS]:
            with pytest.raises(psycopg.Error) as refused:
                await reader.execute(statement)
            assert refused.value.sqlstate in ("42501", "42703", "55000", "0LP01", "22023"), (statement, refused.value)

    assert (seen, limits) == ([{"state": "queued"}], [{"statement_timeout": "5s"}])
    assert await audited(world) == []


async def test_who_may_act_calls_the_functions_and_touches_no_table(world: World, logins: dict[str, str]) -> None:
    name = logins["stoker_operator"].split("//")[1].split(":")[0]
    job = await world.submit(webhook_url="https://x.invalid/")
    node = await world.node()
    failing = await world.submit()
    await node.finish(await node.take())
    await node.finish(await node.take(), USER_ERROR)
    given_up = "UPDATE webhook_deliveries SET state = 'failed', attempts = 10, next_attempt_at = NULL"
    async with world.db.begin() as tx:
        await tx.execute(text(given_up))
    delivery = await world.value("SELECT id FROM webhook_deliveries")

    async with session(logins["stoker_operator"]) as operator:
        limits = await (await operator.execute("SHOW statement_timeout")).fetchall()
        for statement in HOSTILE:
            with pytest.raises(psycopg.Error):
                await operator.execute(statement)
        numbers = [
            await (await operator.execute(statement, values)).fetchall()
            for statement, values in (
                ("SELECT stoker_cancel(%s) AS n", [job.job_id]),
                ("SELECT stoker_retry(%s) AS n", [job.job_id]),
                ("SELECT stoker_retry_failed('acme/echo', '2000-01-01') AS n", []),
                ("SELECT stoker_pause('acme/echo') AS n", []),
                ("SELECT stoker_drain('n1') AS n", []),
                ("SELECT stoker_redeliver(%s) AS n", [delivery]),
            )
        ]
        paused = await (await operator.execute("SELECT DISTINCT paused FROM v_queue_depth")).fetchall()
        asked = await (await operator.execute("SELECT action, target, requested_by FROM v_requests")).fetchall()
        await operator.execute("SELECT stoker_resume('acme/echo')")

    assert limits == [{"statement_timeout": "30s"}]
    assert [row[0]["n"] or None for row in numbers] == [1, 2, 1, None, None, None]
    assert paused in ([], [{"paused": True}])
    assert [(row["action"], row["target"]) for row in asked] == [
        ("cancel", str(job.job_id)),
        ("retry", str(job.job_id)),
        ("retry", str(failing.job_id)),
    ]
    assert {row["requested_by"] for row in asked} == {name}
    assert await audited(world) == [
        ("job.cancel", str(job.job_id), name),
        ("job.retry", str(job.job_id), name),
        ("job.retry", str(failing.job_id), name),
        ("app.pause", "acme/echo", name),
        ("node.drain", "n1", name),
        ("delivery.redeliver", str(delivery), name),
        ("app.resume", "acme/echo", name),
    ]
    assert await world.value("SELECT drain_requested_at IS NOT NULL FROM nodes") is True
    assert await world.rows("SELECT state, attempts - tries_before AS tries FROM webhook_deliveries") == [
        {"state": "pending", "tries": 0}
    ]


async def test_a_function_is_not_led_to_another_table_by_its_callers_names(
    world: World, logins: dict[str, str]
) -> None:
    async with session(logins["stoker_operator"]) as operator:
        await operator.execute("CREATE TEMP TABLE apps (id uuid, name text, paused boolean)")
        await operator.execute("INSERT INTO apps VALUES (gen_random_uuid(), 'acme/echo', false)")
        await operator.execute("SET search_path = pg_temp, public")
        await operator.execute("SELECT public.stoker_pause('acme/echo')")
        fooled = await (await operator.execute("SELECT paused FROM pg_temp.apps")).fetchall()

    assert fooled == [{"paused": False}]
    assert await world.value("SELECT paused FROM apps") is True
    # So with each that is carried out as its owner.
    paths = await world.rows("SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND proname LIKE 'stoker%'")
    assert len(paths) == len(ACTS)
    assert {tuple(row["proconfig"] or ()) for row in paths} == {("search_path=pg_catalog, public, pg_temp",)}


async def test_what_is_not_there_is_refused_and_not_logged(world: World, logins: dict[str, str]) -> None:
    async with session(logins["stoker_operator"]) as operator:
        for statement in ACTS:
            if "acme/echo" not in statement:
                with pytest.raises(psycopg.errors.RaiseException):
                    await operator.execute(statement)
        with pytest.raises(psycopg.errors.RaiseException):
            await operator.execute("SELECT stoker_pause('acme/nobody')")

    assert await audited(world) == []
