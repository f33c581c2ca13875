"""Who prunes: one at a time, by the installation's settings, in batches that Postgres takes in time."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.control.pruning import Pruner
from stoker import sweeps
from stoker.settings import ControlSettings
from stoker.storage import Storage
from tests.support.final_jobs import HOUR, done
from tests.support.job_world import World

pytestmark = pytest.mark.anyio


async def test_the_settings_say_for_all_how_long_each_kind_of_thing_is_kept(world: World) -> None:
    node = await world.node()
    day = 24 * HOUR
    job = await done(world, node)
    days = {"payloads": 1.0, "outputs": 2.0, "events": 3.0, "deliveries": 4.0, "files": 5.0, "jobs": 6.0, "audit": 7.0}
    settings = ControlSettings.model_construct(**{f"keep_{name}_days": each for name, each in days.items()})
    pruner = Pruner(settings, world.db, Storage("http://127.0.0.1:1", "key", "secret", "outputs", "us-east-1"))
    await world.rows(
        "INSERT INTO files (id, tenant_id, key, content_type, file_name, size_bytes, sha256) "
        "VALUES ('f', :tenant, 'f', 'text/plain', 'f', 1, '')",
        tenant=world.tenant_id,
    )
    left = """
        SELECT (SELECT count(*) FROM jobs WHERE payload_removed_at IS NULL) AS payloads,
               (SELECT count(*) FROM jobs WHERE outputs_removed_at IS NULL) AS outputs,
               (SELECT count(*) FROM job_events) AS events, (SELECT count(*) FROM files) AS files,
               (SELECT count(*) FROM jobs) AS jobs, (SELECT count(*) > 0 FROM audit_log) AS acts
    """

    seen = []
    for after in (0.9, 1, 2, 3, 5, 6, 7):
        await world.set_clock(after * day)
        await pruner.prune_wished()
        await pruner.prune_old()
        [row] = await world.rows(left)
        seen.append(tuple(row.values()))

    assert job.created
    assert seen == [
        (1, 1, 5, 1, 1, True),
        (0, 1, 5, 1, 1, True),
        (0, 0, 5, 1, 1, True),
        (0, 0, 1, 1, 1, True),
        (0, 0, 1, 0, 1, True),
        (0, 0, 0, 0, 0, True),
        (0, 0, 0, 0, 0, False),
    ]


async def test_a_sweep_that_fails_is_in_no_other_ones_way_and_is_told_of_at_the_end(world: World) -> None:
    settings = ControlSettings.model_construct(keep_payloads_days=0.5, keep_outputs_days=0.5, keep_audit_days=0.5)
    pruner = Pruner(settings, world.db, Storage("http://127.0.0.1:1", "key", "secret", "outputs", "us-east-1"))
    node = await world.node()
    for keep_s in (HOUR, None):
        await done(world, node, store_io=False, keep_outputs_s=keep_s)
    await world.rows("ALTER TABLE job_heads RENAME TO away")  # of which payloads want something, and outputs nothing
    left = """
        SELECT (SELECT count(*) FROM jobs WHERE outputs_removed_at IS NULL) AS outputs,
               (SELECT count(*) FROM audit_log) AS acts
    """

    seen = []
    for prune, clock in ((pruner.prune_wished, HOUR), (pruner.prune_old, 12 * HOUR)):
        await world.set_clock(clock)
        with pytest.raises(DBAPIError, match="job_heads"):
            await prune()
        [row] = await world.rows(left)
        seen.append((row["outputs"], row["acts"] > 0))

    assert seen == [(1, True), (0, False)]
    await world.rows("ALTER TABLE away RENAME TO job_heads")


async def test_a_batch_that_takes_too_long_is_made_smaller_and_larger_again(world: World) -> None:
    storage = Storage("http://127.0.0.1:1", "key", "secret", "outputs", "us-east-1")
    pruner, asked = Pruner(ControlSettings.model_construct(), world.db, storage), []

    async def sweep(limit: int) -> int:
        asked.append(limit)
        async with world.db.begin() as tx:
            if limit > 10:
                await tx.execute(text("SET LOCAL statement_timeout = '1ms'"))
                await tx.execute(text("SELECT pg_sleep(10)"))
        return 0

    for _ in range(4):
        with contextlib.suppress(DBAPIError):
            await pruner.sweep("jobs", sweep)

    assert asked == [100, 25, 6, 12]


async def test_who_prunes_alone_is_not_waited_for(world: World, database_url: str) -> None:
    """Two at once would wait for each other's rows of the same tenants."""
    node = await world.node()
    await done(world, node, store_io=False, keep_outputs_s=60.0)
    await world.set_clock(HOUR)

    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("SELECT pg_advisory_xact_lock(hashtextextended('stoker retention', 0))")
        done_meanwhile = [
            await sweeps.unstored(world.db, keep_s=60.0, limit=10),
            await sweeps.expired_outputs(world.db, limit=10),
            await sweeps.by_age(world.db, "events", keep_s=60.0, limit=10),
            await sweeps.old_jobs(world.db, keep_s=60.0, limit=10),
        ]

    assert done_meanwhile == [0, 0, 0, 0]
    assert await sweeps.old_jobs(world.db, keep_s=60.0, limit=10) == 1


async def test_replicas_that_prune_at_once_take_each_thing_once(world: World) -> None:
    node = await world.node()
    for _ in range(6):
        await done(world, node, store_io=False, keep_outputs_s=60.0)
    await world.set_clock(HOUR)

    async def replica() -> int:
        return sum([await sweeps.unstored(world.db, keep_s=HOUR, limit=2) for _ in range(4)])

    handled = await asyncio.gather(*(replica() for _ in range(3)))
    while more := await sweeps.unstored(world.db, keep_s=HOUR, limit=2):
        handled.append(more)

    assert sum(handled) == 6
    assert await world.value("SELECT count(*) FROM object_removals") == 6
