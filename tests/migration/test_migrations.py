"""The migrations, from nothing and back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

import migrations
from stoker.database import driver_url
from stoker.errors import ConfigurationError
from stoker.local.engines import Engines
from stoker.tables import metadata
from tests.support.databases import fresh_database


@pytest.fixture
def empty_url(engines: Engines) -> Iterator[str]:
    with fresh_database(engines, migrated=False) as url:
        yield url


OURS = " FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace ORDER BY p.proname DESC"
RELATIONS = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
# All that a table is; autogenerate alone compares no checks, no predicates and no storage parameters.
DEFINITIONS = [
    """
    SELECT concat_ws(' ', table_name, column_name, udt_name, is_nullable, column_default)
    FROM information_schema.columns JOIN pg_tables ON tablename = table_name
    WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1
    """,
    """
    SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version' ORDER BY 1
    """,
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1",
    """
    SELECT concat_ws(' ', relname, reloptions::text) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL ORDER BY 1
    """,
]


def definitions(url: str, query: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [text for (text,) in connection.execute(query)]


def relations(url: str) -> list[str]:
    return definitions(url, RELATIONS) + definitions(url, "SELECT p.proname" + OURS)


def test_an_empty_database_comes_to_the_newest_revision(empty_url: str) -> None:
    assert migrations.current(empty_url) is None

    assert migrations.upgrade(empty_url) == migrations.head()

    assert migrations.current(empty_url) == migrations.head()
    assert migrations.upgrade(empty_url) == migrations.head()


def test_a_downgrade_leaves_nothing_and_an_upgrade_brings_all_back(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    before = relations(empty_url)

    migrations.downgrade(empty_url, "base")
    left = relations(empty_url)
    migrations.upgrade(empty_url)

    assert left == ["alembic_version", "alembic_version_pkc"]
    assert relations(empty_url) == before
    assert {"jobs", "v_jobs", "stoker_now"} <= set(before)


def test_the_migrated_tables_are_the_ones_that_the_code_knows(engines: Engines, empty_url: str) -> None:
    migrations.upgrade(empty_url)
    with fresh_database(engines, migrated=False) as made_url:
        made = create_engine(driver_url(made_url))
        with made.begin() as connection:
            connection.exec_driver_sql("SET check_function_bodies = off")  # they read tables that come after them
            for function in definitions(empty_url, "SELECT pg_get_functiondef(p.oid)" + OURS):
                connection.exec_driver_sql(function)
            metadata.create_all(connection)
        made.dispose()

        for query in DEFINITIONS:
            assert definitions(empty_url, query) == definitions(made_url, query)


def test_alembic_sees_no_difference_either(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    engine = create_engine(driver_url(empty_url))

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        difference = compare_metadata(context, metadata)
    engine.dispose()

    assert difference == []


def test_two_upgrades_at_once_end_in_one_schema(empty_url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        reached = list(pool.map(migrations.upgrade, [empty_url] * 3))

    assert reached == [migrations.head()] * 3


def test_a_migration_waits_for_another_one_and_says_so_in_time(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "WAIT_FOR_OTHERS_S", 0.05)
    with psycopg.connect(empty_url) as other:
        other.execute(f"SELECT pg_advisory_xact_lock({migrations.LOCK})")
        with pytest.raises(ConfigurationError, match="another process is migrating"):
            migrations.upgrade(empty_url)

    assert migrations.upgrade(empty_url) == migrations.head()


def test_who_may_not_make_roles_can_migrate_all_the_same(engines: Engines, empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as admin:
        admin.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        try:
            admin.execute("GRANT CREATE ON SCHEMA public TO plain")
            plain = f"postgresql://plain:plain@{empty_url.rsplit('@', 1)[1]}"

            assert migrations.upgrade(plain) == migrations.head()
        finally:
            admin.execute("DROP OWNED BY plain")
            admin.execute("DROP ROLE plain")


def test_the_frozen_migration_imports_nothing_of_the_project() -> None:
    scripts = Path(migrations.__file__).parent / "versions"

    for script in scripts.glob("*.py"):
        assert "stoker" not in {line.split()[1].split(".")[0] for line in imports(script)}


def imports(script: Path) -> list[str]:
    return [line for line in script.read_text().splitlines() if line.startswith(("import ", "from "))]


def test_a_revision_that_fails_leaves_those_before_it_and_holds_no_lock(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations.upgrade(empty_url, "0001")
    monkeypatch.setattr(migrations, "WAIT_FOR_TABLE", "50ms")
    monkeypatch.setattr(migrations, "TRIES", 1)
    with psycopg.connect(empty_url) as other:
        other.execute("SELECT count(*) FROM apps")  # 0003 adds a column to it

        with pytest.raises(Exception, match="lock timeout"):
            migrations.upgrade(empty_url)

        assert migrations.current(empty_url) == "0002"
    assert migrations.upgrade(empty_url) == migrations.head()


def test_a_job_is_renewed_while_a_later_revision_waits_for_another_table(empty_url: str) -> None:
    migrations.upgrade(empty_url, "0001")
    with psycopg.connect(empty_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT count(*) FROM apps")
        migrating = pool.submit(migrations.upgrade, empty_url)
        with psycopg.connect(empty_url, autocommit=True) as node:
            while not node.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                pass
            node.execute("SET lock_timeout = '5s'")
            node.execute("UPDATE job_leases SET expires_at = now()")  # 0002 added a column to it
        other.rollback()

        assert migrating.result() == migrations.head()
