"""The three engines that Stoker stands on, started together: PostgreSQL, Valkey and SeaweedFS.

DATABASE_URL, REDIS_URL and S3_ENDPOINT_URL replace any of them. It knows nothing of what is stored in them: the stack
migrates. ``stoker.local.stack`` and the tests call it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from stoker.local import external, place, postgres, seaweedfs, valkey
from stoker.local.s3 import S3Address

ROLES = ("postgres", "valkey", "seaweedfs")
Server: TypeAlias = postgres.Postgres | valkey.Valkey | seaweedfs.SeaweedFS

NO_STORE = S3Address("", "", "", "", "")


@dataclass(frozen=True)
class Engines:
    """Addresses of the engines; empty for one that was not wanted. ``pids`` holds those that we started, by role."""

    database_url: str
    redis_url: str
    s3: S3Address
    data_dir: Path
    pids: Mapping[str, int]
    versions: Mapping[str, str]

    def environment(self) -> dict[str, str]:
        """The settings by which Stoker's processes find them."""
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "S3_ENDPOINT_URL": self.s3.endpoint_url,
            "S3_ACCESS_KEY_ID": self.s3.access_key,
            "S3_SECRET_ACCESS_KEY": self.s3.secret_key,
            "S3_BUCKET": self.s3.bucket,
            "S3_REGION": self.s3.region,
        }


@contextmanager
def start_engines(
    data_dir: Path,
    *,
    durable: bool = True,
    want: Collection[str] = ROLES,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Engines]:
    """Run the wanted engines on ``data_dir`` while the context lasts. They die with this process, however it dies.

    Not ``durable``: nothing is synced to disk, for tests.

    Raises:
        EngineError: a program is missing or too old, an engine does not start, or another process holds ``data_dir``.
    """
    data_dir = data_dir.absolute()
    with place.hold(data_dir):
        known = place.passwords(data_dir)
        last = _last_ports(data_dir)
        servers: dict[str, Server] = {}
        try:
            with ThreadPoolExecutor(max_workers=len(ROLES)) as together:
                starts = {
                    role: together.submit(_keep, servers, role, start)
                    for role, start in _starts(data_dir, known, last, durable=durable, environ=environ).items()
                    if role in want
                }
            for started in starts.values():
                started.result()
            place.write_private(
                data_dir / "engines.json",
                last | {role: {"pid": server.process.pid, "ports": server.ports} for role, server in servers.items()},
            )
            yield _engines(data_dir, servers, want, environ)
        finally:
            with ThreadPoolExecutor(max_workers=len(ROLES)) as together:
                list(together.map(lambda server: server.stop(), servers.values()))


def _starts(
    data_dir: Path,
    known: Mapping[str, str],
    last: Mapping[str, Mapping[str, list[int]]],
    *,
    durable: bool,
    environ: Mapping[str, str],
) -> dict[str, Callable[[], Server]]:
    """How to start each engine that the environment does not replace."""

    def ports(role: str) -> list[int]:
        return last.get(role, {}).get("ports", [])

    starts: dict[str, Callable[[], Server]] = {}
    if not environ.get("DATABASE_URL"):
        starts["postgres"] = lambda: postgres.start(
            data_dir, password=known["postgres"], durable=durable, last_ports=ports("postgres"), environ=environ
        )
    if not environ.get("REDIS_URL"):
        starts["valkey"] = lambda: valkey.start(
            data_dir, password=known["valkey"], durable=durable, last_ports=ports("valkey"), environ=environ
        )
    if not environ.get("S3_ENDPOINT_URL"):
        starts["seaweedfs"] = lambda: seaweedfs.start(
            data_dir,
            access_key=known["s3_access_key"],
            secret_key=known["s3_secret_key"],
            durable=durable,
            last_ports=ports("seaweedfs"),
            environ=environ,
        )
    return starts


def _keep(servers: dict[str, Server], role: str, start: Callable[[], Server]) -> None:
    """Put what ``start`` starts where it is stopped, also when another engine fails."""
    servers[role] = start()


def _engines(
    data_dir: Path, servers: Mapping[str, Server], want: Collection[str], environ: Mapping[str, str]
) -> Engines:
    versions = {role: server.version for role, server in servers.items()}
    database_url, redis_url, store = environ.get("DATABASE_URL", ""), environ.get("REDIS_URL", ""), NO_STORE
    match servers.get("postgres"):
        case postgres.Postgres(url=url):
            database_url = url
        case _ if "postgres" in want:
            database_url = database_url.replace("postgresql+psycopg://", "postgresql://")
            versions["postgres"] = external.check_postgres(database_url)
    match servers.get("valkey"):
        case valkey.Valkey(url=url):
            redis_url = url
        case _ if "valkey" in want:
            versions["valkey"] = external.check_redis(redis_url)
    match servers.get("seaweedfs"):
        case seaweedfs.SeaweedFS(address=address):
            store = address
        case _ if "seaweedfs" in want:
            store = external.s3_address(environ)
            external.check_s3(store)
            versions["seaweedfs"] = "S3"
    pids = {role: server.process.pid for role, server in servers.items()}
    return Engines(database_url, redis_url, store, data_dir, pids, versions)


def _last_ports(data_dir: Path) -> dict[str, dict[str, list[int]]]:
    """Where the engines of the last run listened. An unreadable file only costs them their old ports."""
    try:
        last: dict[str, dict[str, list[int]]] = json.loads((data_dir / "engines.json").read_text())
    except (OSError, ValueError):
        return {}
    return last
