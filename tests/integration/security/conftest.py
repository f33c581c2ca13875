"""One world for the whole table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.local.engines import Engines
from tests.integration.security.running import running_world
from tests.integration.security.world import World
from tests.support.databases import fresh_database


@pytest.fixture(scope="module")
async def world(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("world")
    with fresh_database(engines) as database_url:
        async with running_world(engines, database_url, folder) as running:
            yield running
