"""What the tests of the database share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from stoker.local.engines import Engines
from tests.support.databases import fresh_database
from tests.support.job_world import World, new_world


@pytest.fixture
def database_url(engines: Engines) -> Iterator[str]:
    with fresh_database(engines) as url:
        yield url


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A world whose clock stands still until the test moves it; nothing may break an invariant in it."""
    async with new_world(database_url) as world:
        yield world
        assert await world.invariants() == []
