"""What the node's tests share: a database of the module's own, and a desk to submit jobs from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stoker.bus import Bus
from stoker.database import make_engine
from stoker.local.engines import Engines
from stoker.queue import Doorbell
from stoker.storage import Storage
from tests.support.databases import fresh_database
from tests.support.nodes import Desk
from worker_node.engines import Engines as NodeEngines

QUICK = {"STOKER_HEARTBEAT_S": "0.5", "STOKER_LEASE_S": "10"}


@pytest.fixture
def redis_url(engines: Engines) -> str:
    return engines.redis_url


@pytest.fixture(scope="module")
def database_url(engines: Engines) -> Iterator[str]:
    with fresh_database(engines) as url:
        yield url


@pytest.fixture(scope="module")
def node_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture
async def desk(database_url: str, redis_url: str) -> AsyncIterator[Desk]:
    opened = await Desk.open(database_url, redis_url)
    yield opened
    await opened.close()


@pytest.fixture
def storage(engines: Engines) -> Storage:
    s3 = engines.s3
    return Storage(s3.endpoint_url, s3.access_key, s3.secret_key, s3.bucket, s3.region)


@pytest.fixture
async def engines_of_a_node(database_url: str, redis_url: str, storage: Storage) -> AsyncIterator[NodeEngines]:
    opened = NodeEngines(
        db=make_engine(database_url, application_name="tests"),
        bus=Bus(redis_url),
        storage=storage,
        doorbell=Doorbell(redis_url),
    )
    yield opened
    await opened.close()
