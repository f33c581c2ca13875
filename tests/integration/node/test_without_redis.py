"""A node whose Redis forgets everything, or is gone: jobs run all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from stoker.local.engines import Engines, start_engines
from stoker.states import JobState
from tests.integration.node.conftest import QUICK
from tests.support.nodes import Desk, running_node

pytestmark = pytest.mark.anyio

APPS = ["tests.apps.well:Echo"]


@pytest.fixture
def own_redis(engines: Engines, data_dir: Path, own_environ: dict[str, str]) -> Iterator[Engines]:
    """The session's Postgres and S3 with a Valkey of this test alone."""
    with start_engines(data_dir, durable=False, want=["valkey"], environ=own_environ) as own:
        yield replace(engines, redis_url=own.redis_url, pids=own.pids)


@pytest.fixture
async def desk(database_url: str, own_redis: Engines) -> AsyncIterator[Desk]:
    opened = await Desk.open(database_url, own_redis.redis_url)
    yield opened
    await opened.close()


async def test_jobs_run_when_redis_forgets_everything_and_when_it_is_gone(
    own_redis: Engines, database_url: str, desk: Desk, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    with running_node(own_redis, database_url, tmp_path, APPS, **QUICK) as node:
        running = await desk.submit("tests/echo", "/wait", wait_for=str(end))
        await desk.says(running, "waiting")
        redis.Redis.from_url(own_redis.redis_url).flushall()
        forgotten = await desk.submit("tests/echo", ring=False, text="forgotten")
        assert (await desk.final(forgotten)).state is JobState.SUCCEEDED

        os.kill(own_redis.pids["valkey"], signal.SIGKILL)
        end.touch()
        assert (await desk.final(running)).attempt == 1
        alone = await desk.final(await desk.submit("tests/echo", text="without redis"))
        assert (alone.state, alone.attempt) == (JobState.SUCCEEDED, 1)

        node.terminate()


async def test_a_node_starts_and_works_while_redis_is_away(
    own_redis: Engines, database_url: str, desk: Desk, tmp_path: Path
) -> None:
    os.kill(own_redis.pids["valkey"], signal.SIGKILL)

    with running_node(own_redis, database_url, tmp_path, APPS, **QUICK) as node:
        job = await desk.final(await desk.submit("tests/echo", text="no redis at all"))

        assert job.state is JobState.SUCCEEDED
        node.terminate()
