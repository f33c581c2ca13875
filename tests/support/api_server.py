"""A real API in this process: uvicorn on a free port, with its settings, for tests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from api.app import create_app
from api.connections import Connections
from api.server import Server, bind
from stoker.local.engines import Engines
from stoker.settings import ApiSettings


def api_settings(engines: Engines, database_url: str, **changes: object) -> ApiSettings:
    return ApiSettings.model_validate(
        {
            "database_url": database_url,
            "redis_url": engines.redis_url,
            "s3_endpoint_url": engines.s3.endpoint_url,
            "s3_access_key_id": engines.s3.access_key,
            "s3_secret_access_key": engines.s3.secret_key,
            "s3_bucket": engines.s3.bucket,
            "s3_region": engines.s3.region,
            "port": 0,
            "max_body_bytes": 200_000,
            "look_s": 0.3,
            "metrics_age_s": 0.0,
            "webhook_allowed_hosts": "127.0.0.1",
            **changes,
        }
    )


@dataclass(frozen=True)
class RunningApi:
    url: str
    here: Connections
    server: Server


@asynccontextmanager
async def running_api(settings: ApiSettings, *, port: int = 0, **tls: Path) -> AsyncIterator[RunningApi]:
    app = create_app(settings)
    server = _Announcing(app, bind("127.0.0.1", port), **tls)
    serving = asyncio.create_task(server.serve())
    started = asyncio.create_task(server.answers.wait())
    await asyncio.wait([serving, started], return_when=asyncio.FIRST_COMPLETED)
    assert server.started, serving.exception()
    try:
        yield RunningApi(server.url, app.state.here, server)
    finally:
        server.should_exit = True
        await serving


class _Announcing(Server):
    def __init__(self, *args: object, **tls: Path) -> None:
        super().__init__(*args, **tls)  # type: ignore[arg-type]  # handed through
        self.answers = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answers.set()
