"""Updating the schema of a system that runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event

import migrations
from stoker.local.engines import Engines
from tests.migration import former
from tests.support.databases import fresh_database


@pytest.fixture(scope="module")
def former_template(engines: Engines) -> Iterator[str]:
    with fresh_database(engines, migrated=False) as url:
        migrations.upgrade(url, former.REVISION)
        yield url.rsplit("/", 1)[1]


@pytest.fixture
def former_url(engines: Engines, former_template: str) -> Iterator[str]:
    with fresh_database(engines, template=former_template) as url:
        yield url


def rows(url: str, query: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), values or None).fetchall()


HEADS = """
SELECT job_id FROM job_heads h
WHERE mark <> (SELECT coalesce(max(mark), 0) FROM job_events e WHERE e.job_id = h.job_id)
"""
# What those who have read up to the horizon would never be told of.
MISSED = "SELECT seq FROM job_events WHERE job_id = %s AND (tenant_id IS NULL OR mark IS NULL OR mark < %s)"
WITHOUT_PHASES = """
SELECT u.job_id FROM usage_records u JOIN job_attempts t USING (job_id, attempt)
WHERE t.boot_id = t.job_id AND t.attempt = 2
  AND (u.phases, u.peak_memory_bytes) IS DISTINCT FROM (t.phases, t.peak_memory_bytes)
"""
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
# Of this transaction: tables that were there before, which nobody else can write until it ends, and its rows of these.
LOCKED = """
SELECT (SELECT string_agg(version_num, ',') FROM alembic_version), s.relname,
       s.seq_tup_read + s.n_tup_ins + s.n_tup_upd + s.n_tup_del, current_setting('lock_timeout')
FROM pg_stat_xact_user_tables s
WHERE s.relname NOT IN ('alembic_version', 'event_clock', 'job_children') AND EXISTS (
    SELECT FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.relation = s.relid
    AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
"""


class Killed(Exception):
    """Stands for the end of the process."""


@contextmanager
def hooked(name: str, hook: Callable[..., object]) -> Iterator[None]:
    """Call ``hook`` at an event of each of SQLAlchemy's connections."""
    event.listen(Engine, name, hook)
    try:
        yield
    finally:
        event.remove(Engine, name, hook)


def test_nodes_of_the_release_before_go_on_working_while_a_large_database_is_updated(former_url: str) -> None:
    former.fill(former_url, 1600, is_slow=True)
    with ThreadPoolExecutor(1) as pool:
        updating = pool.submit(migrations.upgrade, former_url)
        former.work(former_url, updating.done)
    ((horizon,),) = rows(former_url, "SELECT stoker_horizon()")
    last = former.work(former_url, lambda: True)

    assert updating.result() == migrations.head()
    assert rows(former_url, "SELECT * FROM v_invariants") == []
    assert rows(former_url, WITHOUT_PHASES) == []
    assert rows(former_url, MISSED, last, horizon) == []
    assert rows(former_url, HEADS) == []


def test_a_migration_that_locks_a_table_locks_no_other_touches_no_row_and_does_not_wait_long(former_url: str) -> None:
    former.fill(former_url, 10)
    locked: dict[str, list[tuple[str, int, str]]] = defaultdict(list)

    def look(connection: Connection) -> None:
        for at, table, touched, wait in connection.exec_driver_sql(LOCKED):
            locked[at].append((table, touched, wait))

    with hooked("commit", look):
        migrations.upgrade(former_url)

    assert {table for ((table, _, _),) in locked.values()} >= {"job_heads", "job_events", "job_leases", "usage_records"}
    assert {(touched, wait) for ((_, touched, wait),) in locked.values()} == {(0, migrations.WAIT_FOR_TABLE)}


def test_an_update_that_is_killed_in_any_revision_goes_on_from_there(former_url: str) -> None:
    former.fill(former_url, 10)
    killed: set[object] = set()

    def kill(connection: Connection) -> None:
        at = connection.exec_driver_sql("SELECT max(version_num) FROM alembic_version").scalar()
        if at != former.REVISION and at not in killed:
            killed.add(at)
            raise Killed

    with hooked("commit", kill):
        while True:
            with suppress(Killed):
                migrations.upgrade(former_url)
                break

    assert killed == {f"{number:04d}" for number in range(5, int(migrations.head()) + 1)}
    assert rows(former_url, WITHOUT_PHASES) == []


def test_an_update_that_is_killed_between_two_batches_goes_on_from_there(former_url: str) -> None:
    former.fill(former_url, 2100)
    batches = 0

    def kill(*parts: Any) -> None:
        nonlocal batches
        batches += "UPDATE usage_records" in parts[2]
        if batches == 2:
            raise Killed

    with hooked("before_cursor_execute", kill), pytest.raises(Killed):
        migrations.upgrade(former_url)
    assert len(rows(former_url, WITHOUT_PHASES)) == 100

    migrations.upgrade(former_url)

    assert rows(former_url, WITHOUT_PHASES) == []


def test_an_update_makes_known_how_deep_the_children_are_that_wait_for_a_claim(former_url: str) -> None:
    former.fill(former_url, 1)
    migrations.upgrade(former_url, "0015")
    root = former.work(former_url, lambda: True)
    waiting = former.submit_child(former_url, root, 1, ends=False)
    below = former.submit_child(former_url, waiting, 2, ends=False)
    ended = former.submit_child(former_url, below, 3, ends=True)

    migrations.upgrade(former_url)

    depths = dict(rows(former_url, "SELECT id, depth FROM jobs"))
    assert [depths[job] for job in (root, waiting, below)] == [0, 1, 2]
    assert depths[ended] == 0, "no claim looks at it any more: it is not rewritten"


def test_an_index_whose_building_was_broken_off_is_built_anew(former_url: str) -> None:
    former.fill(former_url, 10)
    migrations.upgrade(former_url, "0013")
    with psycopg.connect(former_url, autocommit=True) as other, pytest.raises(psycopg.errors.UniqueViolation):
        other.execute("CREATE UNIQUE INDEX CONCURRENTLY events_of_tenant ON job_events (kind)")
    assert rows(former_url, INVALID) == [("events_of_tenant",)]

    migrations.upgrade(former_url)

    assert rows(former_url, INVALID) == []
    assert "tenant_id, mark" in str(rows(former_url, "SELECT pg_get_indexdef('events_of_tenant'::regclass)"))


def test_a_table_that_is_busy_is_left_to_the_others_and_asked_for_again(
    former_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "WAIT_FOR_TABLE", "50ms")
    monkeypatch.setattr(migrations, "PAUSE_S", 0.0)
    waits = 0

    def give_way(*parts: Any) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            other.rollback()

    with psycopg.connect(former_url) as other:
        other.execute("SELECT count(*) FROM job_leases")
        with hooked("rollback", give_way):
            assert migrations.upgrade(former_url) == migrations.head()
