"""docs/admin-sql.md: what it shows can be typed."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from tests.support.job_world import World

pytestmark = pytest.mark.anyio

TEXT = (Path(__file__).parents[3] / "docs" / "admin-sql.md").read_text()


async def test_every_statement_in_the_document_runs(world: World, database_url: str) -> None:
    statements = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
    statements += [match[1] for match in re.finditer(r"psql \"\$DATABASE_URL\" -c '(.*)'", TEXT)]
    await world.submit()

    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for statement in statements:
            await connection.execute(statement)
        await connection.rollback()  # the role too

    assert len(statements) > 10


async def test_the_document_lists_every_view_with_its_columns(world: World) -> None:
    listed = dict(re.findall(r"^\| `(v_\w+)` \|[^|]*\| ([^|]*) \|$", TEXT, re.MULTILINE))

    found = await world.rows(
        "SELECT table_name, string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns "
        "FROM information_schema.columns JOIN pg_views ON viewname = table_name WHERE schemaname = 'public' GROUP BY 1"
    )

    assert {row["table_name"]: row["columns"] for row in found} == listed
