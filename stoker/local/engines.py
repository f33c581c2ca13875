"""The three engines that Stoker stands on, started together: PostgreSQL, Valkey and SeaweedFS.

DATABASE_URL, REDIS_URL and S3_ENDPOINT_URL replace any of them. It knows nothing of what is stored in them: the stack
migrates. ``stoker.local.stack`` and the tests call it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from stoker.local import external, place, postgres, seaweedfs, valkey
from stoker.local.binaries import KINDS, Binary, find
from stoker.local.s3 import S3Address

ROLES = ("postgres", "valkey", "seaweedfs")
REPLACED_BY = {"postgres": "DATABASE_URL", "valkey": "REDIS_URL", "seaweedfs": "S3_ENDPOINT_URL"}
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
        # What can be refused is refused before anything runs.
        found = {
            kind.role: find(kind, environ)
            for kind in KINDS
            if kind.role in want and not environ.get(REPLACED_BY[kind.role])
        }
        replaced = _replaced([role for role in want if role not in found], environ)
        last = _last_ports(data_dir)
        with place.usable(data_dir):
            place.passwords(data_dir)  # made before three threads ask for them
        servers: dict[str, Server] = {}

        def start(role: str) -> None:
            ports = last.get(role, {}).get("ports", [])
            servers[role] = _start(role, found[role], data_dir, ports, durable=durable)

        try:
            with ThreadPoolExecutor(max_workers=len(ROLES)) as together:
                starts = [together.submit(start, role) for role in found]
            for started in starts:
                started.result()
            now = {role: {"pid": server.process.pid, "ports": server.ports} for role, server in servers.items()}
            place.write_private(data_dir / "engines.json", last | now)
            yield _engines(data_dir, servers, replaced)
        finally:
            with ThreadPoolExecutor(max_workers=len(ROLES)) as together:
                list(together.map(lambda server: server.stop(), servers.values()))


@dataclass(frozen=True)
class _Replaced:
    """The engines of the user's own."""

    database_url: str = ""
    redis_url: str = ""
    s3: S3Address = NO_STORE
    versions: Mapping[str, str] = field(default_factory=dict)


def _replaced(roles: Collection[str], environ: Mapping[str, str]) -> _Replaced:
    """The addresses of the engines that the environment names, each of them tried."""
    versions = {}
    database_url, redis_url, store = "", "", NO_STORE
    if "postgres" in roles:
        database_url = external.libpq_url(environ["DATABASE_URL"])
        versions["postgres"] = external.check_postgres(database_url)
    if "valkey" in roles:
        redis_url = environ["REDIS_URL"]
        versions["valkey"] = external.check_redis(redis_url)
    if "seaweedfs" in roles:
        store = external.s3_address(environ)
        external.check_s3(store)
        versions["seaweedfs"] = "S3"
    return _Replaced(database_url, redis_url, store, versions)


def _start(role: str, binary: Binary, data_dir: Path, last_ports: list[int], *, durable: bool) -> Server:
    known = place.passwords(data_dir)
    match role:
        case "postgres":
            return postgres.start(binary, data_dir, password=known["postgres"], durable=durable, last_ports=last_ports)
        case "valkey":
            return valkey.start(binary, data_dir, password=known["valkey"], durable=durable, last_ports=last_ports)
        case _:
            return seaweedfs.start(
                binary,
                data_dir,
                access_key=known["s3_access_key"],
                secret_key=known["s3_secret_key"],
                durable=durable,
                last_ports=last_ports,
            )


def _engines(data_dir: Path, servers: Mapping[str, Server], replaced: _Replaced) -> Engines:
    database_url, redis_url, store = replaced.database_url, replaced.redis_url, replaced.s3
    for server in servers.values():
        match server:
            case postgres.Postgres(url=database_url):
                pass
            case valkey.Valkey(url=redis_url):
                pass
            case seaweedfs.SeaweedFS(address=store):
                pass
    pids = {role: server.process.pid for role, server in servers.items()}
    versions = {role: server.version for role, server in servers.items()}
    return Engines(database_url, redis_url, store, data_dir, pids, {**replaced.versions, **versions})


def _last_ports(data_dir: Path) -> dict[str, dict[str, list[int]]]:
    """Where the engines of the last run listened. An unreadable file only costs them their old ports."""
    try:
        last: dict[str, dict[str, list[int]]] = json.loads((data_dir / "engines.json").read_text())
    except (OSError, ValueError):
        return {}
    return last
