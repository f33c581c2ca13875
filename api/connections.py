"""What the routes work with: one of each for the process, made and ended with the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import HTTPConnection

from api.hub import Hub
from api.metrics import Metrics
from api.open_keys import OpenKeys
from api.rates import Rates
from api.recent import Recent
from api.relays import Relays
from stoker.apps import AppVersion
from stoker.bus import Bus
from stoker.database import make_engine
from stoker.keys import Caller
from stoker.queue import Doorbell
from stoker.settings import ApiSettings
from stoker.storage import Storage
from stoker.submits import Submits

POOL_SIZE = 10


@dataclass(frozen=True, slots=True)
class Connections:
    """``stopping`` is set when the server shuts down: streams end by themselves then."""

    settings: ApiSettings
    db: AsyncEngine
    bus: Bus
    hub: Hub
    relays: Relays
    doorbell: Doorbell
    storage: Storage
    metrics: Metrics
    stopping: asyncio.Event
    submits: Submits
    callers: Recent[Caller]
    versions: Recent[AppVersion]
    rates: Rates
    open_keys: OpenKeys


@asynccontextmanager
async def open_connections(
    settings: ApiSettings, metrics: Metrics, stopping: asyncio.Event
) -> AsyncIterator[Connections]:
    """Make them. Needs no engine to be up: what cannot be reached says so in each answer."""
    db = make_engine(settings.database_url, application_name="stoker-api", pool_size=POOL_SIZE)
    bus, doorbell = Bus(settings.redis_url, settings.progress_redis_url), Doorbell(settings.redis_url)
    rates, open_keys = Rates(settings.redis_url), OpenKeys(db)
    s3 = settings.s3
    storage = Storage(
        s3.endpoint_url, s3.access_key_id, s3.secret_access_key, s3.bucket, s3.region, s3.public_endpoint_url
    )
    try:
        async with (
            Hub(bus, db, look_s=settings.look_s).running() as hub,
            Relays(hub, bus, db, look_s=settings.look_s, stopping=stopping).running() as relays,
        ):
            yield Connections(
                settings,
                db,
                bus,
                hub,
                relays,
                doorbell,
                storage,
                metrics,
                stopping,
                submits=Submits(db),
                callers=Recent(),
                versions=Recent(),
                rates=rates,
                open_keys=open_keys,
            )
    finally:
        open_keys.close()
        await doorbell.close()
        await rates.close()
        await bus.close()
        await db.dispose()


async def _of(connection: HTTPConnection) -> Connections:
    # Not a plain function: FastAPI would run it in a thread, for each request.
    here: Connections = connection.app.state.here
    return here


Here = Annotated[Connections, Depends(_of)]
"""The connections, as a route's parameter."""


def base_url(connection: HTTPConnection, settings: ApiSettings) -> str:
    """Where the caller reaches this API, without a slash at the end."""
    return (settings.public_url or str(connection.base_url)).rstrip("/")


async def _base(connection: HTTPConnection, here: Here) -> str:
    return base_url(connection, here.settings)


BaseUrl = Annotated[str, Depends(_base)]
"""The base of absolute links, as a route's parameter."""
