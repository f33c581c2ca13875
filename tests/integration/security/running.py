"""A world that runs: an API, a control loop and a node, each a process, as they are started anywhere."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from stoker.database import make_engine
from stoker.local.engines import Engines
from stoker.local.part import read_line
from stoker.storage import Storage
from tests.integration.security.victim import settle
from tests.integration.security.world import MAX_BODY_BYTES, MAX_UPLOAD_BYTES, World
from tests.support.prepared import Prepared
from tests.support.receiver import Receiver, Reply, running_receiver

APP = "tests.apps.served:Served"
READY_S = 60.0


@asynccontextmanager
async def running_world(engines: Engines, database_url: str, folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        prepared = stack.enter_context(Prepared())
        receiver = await stack.enter_async_context(running_receiver())
        inside = await asyncio.start_server(lambda _, writer: _enter(world, writer), "127.0.0.1", 0)
        await stack.enter_async_context(inside)
        environ = _environ(engines, database_url, folder, receiver)
        urls = await asyncio.gather(
            _start(prepared, "api", (), environ, folder),
            _start(prepared, "api.control", (), environ, folder),
            _start(prepared, "worker_node", ("--app", APP, "--drain-grace-s", "1"), environ, folder),
        )
        api = urlsplit(urls[0]["url"])
        db = make_engine(database_url, application_name="tests", pool_size=1)
        stack.push_async_callback(db.dispose)
        s3 = engines.s3
        storage = Storage(s3.endpoint_url, s3.access_key, s3.secret_key, s3.bucket, s3.region)
        address = (str(api.hostname), int(api.port or 0))
        watch = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        await stack.enter_async_context(watch)
        world = World(address, engines, folder, db, watch, storage, receiver)
        inside_at = inside.sockets[0].getsockname()
        world.names |= {
            "host": f"{address[0]}:{address[1]}",
            "inside": f"127.0.0.1:{inside_at[1]}",
            "inside_port": str(inside_at[1]),
            "receiver": receiver.address,
            "app": "tests/served",
        }
        receiver.statuses += [200]
        await settle(world)
        receiver.statuses += [Reply(302, f"location: http://{world.names['inside']}/\r\n")] * 100
        yield world


async def _enter(world: World, writer: asyncio.StreamWriter) -> None:
    world.inside += 1
    writer.close()


def _environ(engines: Engines, database_url: str, folder: Path, receiver: Receiver) -> dict[str, str]:
    foreign = ("DATABASE_URL", "REDIS_URL", "S3_", "STOKER_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    s3 = engines.s3
    return own | {
        "DATABASE_URL": database_url,
        "REDIS_URL": engines.redis_url,
        "S3_ENDPOINT_URL": s3.endpoint_url,
        "S3_ACCESS_KEY_ID": s3.access_key,
        "S3_SECRET_ACCESS_KEY": s3.secret_key,
        "S3_BUCKET": s3.bucket,
        "S3_REGION": s3.region,
        "OMP_NUM_THREADS": "1",
        "STOKER_LOG_FORMAT": "json",
        "STOKER_PORT": "0",
        "STOKER_DATA_DIR": str(folder / "node"),
        "STOKER_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "STOKER_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
        "STOKER_WEBHOOK_ALLOWED_HOSTS": receiver.address,
        "STOKER_FETCH_ALLOWED_HOSTS": receiver.address,
    }


async def _start(
    prepared: Prepared, module: str, arguments: tuple[str, ...], environ: dict[str, str], folder: Path
) -> dict[str, Any]:
    log = folder / f"{module}.log"
    _, reader = await asyncio.to_thread(prepared.start, module, arguments, environ, log)
    line = await asyncio.to_thread(read_line, reader, READY_S)
    assert line, f"{module} is not ready: {log.read_text()[-2000:]}"
    said: dict[str, Any] = json.loads(line)
    return said
