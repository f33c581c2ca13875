"""One API for each module of tests, on a database of its own; each test has its own tenant and app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stoker.bus import Bus
from stoker.local.engines import Engines
from stoker.storage import Storage
from tests.support.acting_node import ActingNode
from tests.support.api_server import RunningApi, api_settings, running_api
from tests.support.databases import fresh_database
from tests.support.tenants import Tenant, make_client


@pytest.fixture(scope="module")
def database_url(engines: Engines) -> Iterator[str]:
    with fresh_database(engines) as url:
        yield url


@pytest.fixture(scope="module")
async def api(engines: Engines, database_url: str) -> AsyncIterator[RunningApi]:
    async with running_api(api_settings(engines, database_url)) as running:
        yield running


@pytest.fixture
def db(api: RunningApi) -> AsyncEngine:
    return api.here.db


@pytest.fixture
def bus(api: RunningApi) -> Bus:
    return api.here.bus


@pytest.fixture
def storage(api: RunningApi) -> Storage:
    return api.here.storage


@pytest.fixture
def app() -> str:
    return f"acme/app-{uuid4().hex[:8]}"


@pytest.fixture
async def node(db: AsyncEngine, bus: Bus, app: str) -> ActingNode:
    return await ActingNode.start(db, bus, app)


@pytest.fixture
async def caller(api: RunningApi) -> AsyncIterator[Tenant]:
    tenant = await make_client(api, "run")
    async with tenant.http:
        yield tenant


@pytest.fixture
async def http(caller: Tenant) -> httpx2.AsyncClient:
    return caller.http


@pytest.fixture
async def admin(api: RunningApi) -> AsyncIterator[httpx2.AsyncClient]:
    tenant = await make_client(api, "admin")
    async with tenant.http:
        yield tenant.http


@pytest.fixture
async def stranger(api: RunningApi) -> AsyncIterator[httpx2.AsyncClient]:
    tenant = await make_client(api, "admin")
    async with tenant.http:
        yield tenant.http
