"""docs/admin-sql.md: what it shows can be typed, and finds what there is to find where much has happened."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from anyio import to_thread
from sqlalchemy import text

from api.control.deliverer import Deliverer
from stoker import jobs
from stoker.cli.questions import QUESTIONS
from tests.support.job_world import CRASH, RETRYABLE, USER_ERROR, World

pytestmark = pytest.mark.anyio

TEXT = (Path(__file__).parents[3] / "docs" / "admin-sql.md").read_text()


@pytest.fixture
async def busy(world: World) -> World:
    """A world with something for each question."""
    node, other = await world.node(), await world.tenant("other")
    await world.node("n2")
    for outcome, attempts in ((jobs.Succeeded({"ok": 1}), 1), (USER_ERROR, 1), (CRASH, 1), (RETRYABLE, 2)):
        await world.submit(webhook_url="https://receiver.invalid/hook?token=hidden", max_attempts=attempts)
        await world.set_clock(1)
        await node.finish(await node.take(), outcome, gpu_seconds=3.0)
    await world.submit(tenant_id=other)
    await world.submit(tenant_id=other)
    await node.take()
    sender = Deliverer(world.db, public_url=None, allowed_hosts=frozenset())
    await sender.deliver_due()
    await sender.close()
    await world.set_clock(20)  # past the leases: a node is gone, a job is stuck
    await world.rows("SELECT stoker_cancel(id) FROM jobs WHERE state = 'queued' LIMIT 1")
    return world


async def test_every_statement_in_the_document_runs(world: World, database_url: str) -> None:
    statements = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
    statements += [match[1] for match in re.finditer(r"psql \"\$DATABASE_URL\" -c '(.*)'", TEXT)]
    await world.submit()

    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for statement in statements:
            await connection.execute(statement)
        await connection.rollback()  # the roles too

    assert len(statements) > 15


async def test_the_document_lists_every_view_with_its_columns(world: World) -> None:
    listed = dict(re.findall(r"^\| `(v_\w+)` \|[^|]*\| ([^|]*) \|$", TEXT, re.MULTILINE))

    found = await world.rows(
        "SELECT table_name, string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns "
        "FROM information_schema.columns JOIN pg_views ON viewname = table_name WHERE schemaname = 'public' GROUP BY 1"
    )

    assert {row["table_name"]: row["columns"] for row in found} == listed


def test_the_questions_of_the_document_are_those_that_the_command_line_knows() -> None:
    written = dict(re.findall(r"^\*\*(\w+)\*\*: [^\n]+\?\n\n```sql\n(.*?);\n```$", TEXT, re.DOTALL | re.MULTILINE))

    assert written == {name: statement.strip() for name, statement in QUESTIONS.items()}
    assert len(written) >= 12


async def test_each_question_is_answered_where_there_is_something_to_find(busy: World) -> None:
    answers: dict[str, list[dict[str, Any]]] = {}
    for name, statement in QUESTIONS.items():
        answers[name] = await busy.rows(statement)

    assert {name for name, rows in answers.items() if not rows} == {"invariants"}
    assert {row["tenant"] for row in answers["waiting"]} == {"default", "other"}
    assert [row["node_id"] for row in answers["running"]] == ["n1"]
    assert "lease ran out" in {row["problem"] for row in answers["stuck"]}
    assert {row["node_id"] for row in answers["lost"]} == {"n1", "n2"}
    assert [row["error_code"] for row in answers["failures"]] == ["app_error"]
    assert {row["error_code"] for row in answers["again"]} == {"app_error", "worker_crashed"}
    assert sum(row["jobs"] for row in answers["throughput"]) == 2
    assert [row["failed_percent"] for row in answers["throughput"]] == [50]
    assert [(row["tenant"], row["wasted_percent"]) for row in answers["spent"]] == [("default", 75)]
    assert [(row["receiver"], row["failed"], row["pending"]) for row in answers["webhooks"]] == [
        ("receiver.invalid", 0, 2)
    ]
    assert answers["acts"][0]["action"] == "job.cancel"
    assert [(row["action"], row["done_at"]) for row in answers["requests"]] == [("cancel", None)]
    assert "hidden" not in str(answers)


def ask(database_url: str, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stoker", "sql", *arguments],
        input=typed,
        env={"DATABASE_URL": database_url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_command_line_answers_by_name_and_opens_psql_for_reading(world: World, database_url: str) -> None:
    async with world.db.begin() as tx:
        await tx.execute(text("INSERT INTO admin_requests (action, target) VALUES ('cancel', 'x')"))

    typed = "SHOW statement_timeout; DELETE FROM admin_requests;\n"

    named = await to_thread.run_sync(ask, database_url, "requests", "--json")
    opened = await to_thread.run_sync(lambda: ask(database_url, typed=typed))

    assert '"target": "x"' in named.stdout, named.stderr
    assert "30s" in opened.stdout
    assert "cannot execute DELETE in a read-only transaction" in opened.stderr
