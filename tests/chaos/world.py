"""The world that chaos breaks: three engines, an API, a control loop and two nodes, each a process that can be killed.

All of them come back on the same addresses and data. Both nodes reach Postgres and Redis through relays that can be cut
and silenced. What is done to it, and when, is said elsewhere (``faults``).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

import migrations
from stoker.crash_points import CrashAt
from stoker.local import place, postgres, seaweedfs, valkey
from stoker.local.binaries import KINDS, find
from stoker.local.engines import Server
from stoker.local.part import read_line
from stoker.local.ports import free_ports
from stoker.local.process import has_ended
from tests.support.prepared import Prepared
from tests.support.proxy import Proxy

MIXED, RANKED = "tests.apps.chaos:Mixed", "tests.apps.chaos:Ranked"
NODES = ("node-1", "node-2")
PARTS = ("api", "control", *NODES)
READY_S, END_S = 60.0, 30.0
MARK = "STOKER_CHAOS_WORLD"
"""An environment variable that whatever a part starts inherits: by it what is left over is found."""


@dataclass
class Member:
    """A part as it runs now."""

    role: str
    boot: int
    pid: int
    pidfd: int

    def is_dead(self) -> bool:
        return has_ended(self.pidfd, 0)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def ended(self, within_s: float = END_S) -> bool:
        return await asyncio.to_thread(has_ended, self.pidfd, within_s)

    def below(self) -> list[psutil.Process]:
        """What it has started, and what that has."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []


@dataclass
class World:
    """``lease_s`` is the nodes' lease; a heartbeat is a fifth of it."""

    folder: Path
    lease_s: float = 3.0
    apps: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict.fromkeys(NODES, (MIXED, RANKED)))
    mark: str = field(default_factory=lambda: uuid4().hex)
    members: dict[str, Member] = field(default_factory=dict)
    relays: dict[str, dict[str, Proxy]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    """Processes that were still there when what started them had been dead for a while."""

    async def __aenter__(self) -> Self:
        self._prepared = Prepared()
        self._boots = dict.fromkeys(PARTS, 0)
        self._passwords = place.passwords(self.folder)
        self._binaries = {kind.role: find(kind, {}) for kind in KINDS}
        self._engines: dict[str, Server] = {}
        self.webhook_host = "127.0.0.1"
        try:
            await asyncio.gather(*(self.start_engine(role) for role in self._binaries))
            await asyncio.to_thread(migrations.upgrade, self.database_url)
            for node in NODES:
                self.relays[node] = {role: Proxy(self._engines[role].ports[0]) for role in ("postgres", "valkey")}
                for relay in self.relays[node].values():
                    relay.mend()
            [self._api_port] = free_ports(1)
            await asyncio.gather(*(self.start(role) for role in PARTS))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._api_port}"

    @property
    def database_url(self) -> str:
        server = self._engines["postgres"]
        assert isinstance(server, postgres.Postgres)
        return server.url

    @property
    def redis_url(self) -> str:
        server = self._engines["valkey"]
        assert isinstance(server, valkey.Valkey)
        return server.url

    @property
    def store(self) -> dict[str, str]:
        server = self._engines["seaweedfs"]
        assert isinstance(server, seaweedfs.SeaweedFS)
        address = server.address
        return {
            "S3_ENDPOINT_URL": address.endpoint_url,
            "S3_ACCESS_KEY_ID": address.access_key,
            "S3_SECRET_ACCESS_KEY": address.secret_key,
            "S3_BUCKET": address.bucket,
            "S3_REGION": address.region,
        }

    def engine_pid(self, role: str) -> int:
        return self._engines[role].process.pid

    async def start_engine(self, role: str) -> None:
        """Start it, or start it again where it was."""
        before = self._engines.get(role)
        ports, binary, known = before.ports if before else [], self._binaries[role], self._passwords

        def start() -> Server:
            match role:
                case "postgres":
                    return postgres.start(
                        binary, self.folder, password=known["postgres"], durable=True, last_ports=ports
                    )
                case "valkey":
                    return valkey.start(binary, self.folder, password=known["valkey"], durable=True, last_ports=ports)
                case _:
                    keys = {"access_key": known["s3_access_key"], "secret_key": known["s3_secret_key"]}
                    return seaweedfs.start(binary, self.folder, **keys, durable=True, last_ports=ports)

        self._engines[role] = await asyncio.to_thread(start)

    async def start(self, role: str, *, crash_at: CrashAt | None = None) -> bool:
        """Start a part and wait until it is ready; False if it died before."""
        self._boots[role] += 1
        boot = self._boots[role]
        module, arguments = MODULES.get(role) or ("worker_node", node_arguments(role, self.apps[role]))
        environ = self._environ(role) | ({"STOKER_CRASH_AT": str(crash_at)} if crash_at else {})
        log = self.folder / "log" / f"{role}.{boot}.log"
        pid, reader = await asyncio.to_thread(self._prepared.start, module, arguments, environ, log)
        try:
            self.members[role] = Member(role, boot, pid, os.pidfd_open(pid))
        except ProcessLookupError:
            os.close(reader)
            return False
        line = await asyncio.to_thread(read_line, reader, READY_S)
        assert line is not None, f"{role} is not ready: {log.read_text()[-2000:]}"
        return bool(line)

    async def see_end(self, role: str, *, within_s: float = END_S) -> bool:
        """Wait until a part has died, and then until all that it had started has, too."""
        member, below = self.members[role], self.members[role].below()
        if not await member.ended(within_s):
            return False
        self.left += await asyncio.to_thread(still_there, role, below)
        return True

    async def kill(self, role: str) -> None:
        self.members[role].send(signal.SIGKILL)
        assert await self.see_end(role)

    def app_hosts(self, node: str) -> list[psutil.Process]:
        return [process for process in self.members[node].below() if "worker_node.apphost" in command(process)]

    def ranks(self, node: str) -> list[psutil.Process]:
        return [process for process in self.members[node].below() if "worker_node.distributed" in command(process)]

    def marked(self) -> Iterator[psutil.Process]:
        """Every process of this world but its engines."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    async def stop(self) -> None:
        """End the parts in order; who is left then is in ``left``."""
        for member in self.members.values():
            member.send(signal.SIGTERM)
        for role in self.members:
            if not await self.see_end(role):
                self.left.append(f"{role}, which was asked to stop")
        self.left += [f"{process.pid} {command(process)[:100]}" for process in self.marked()]

    async def _end(self) -> None:
        for process in list(self.marked()):
            with suppress(psutil.Error):
                process.kill()
        for relays in self.relays.values():
            for relay in relays.values():
                relay.close()
        self._prepared.__exit__(None, None, None)
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self._engines.values()))

    def _environ(self, role: str) -> dict[str, str]:
        foreign = ("DATABASE_URL", "REDIS_URL", "S3_", "STOKER_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        relays = {engine: relay.port for engine, relay in self.relays.get(role, {}).items()}
        return {
            **own,
            **self.store,
            "DATABASE_URL": through(self.database_url, relays.get("postgres")),
            "REDIS_URL": through(self.redis_url, relays.get("valkey")),
            "OMP_NUM_THREADS": "1",
            "STOKER_TESTING": "1",
            "STOKER_LOG_FORMAT": "json",
            "STOKER_HOST": "127.0.0.1",
            "STOKER_PORT": str(self._api_port),
            "STOKER_PUBLIC_URL": self.api_url,
            "STOKER_WEBHOOK_ALLOWED_HOSTS": self.webhook_host,
            "STOKER_LEASE_S": str(self.lease_s),
            "STOKER_HEARTBEAT_S": str(self.lease_s / 5),
            "STOKER_DATA_DIR": str(self.folder / role),
            MARK: self.mark,
        }


MODULES: Mapping[str, tuple[str, tuple[str, ...]]] = {"api": ("api", ()), "control": ("api.control", ())}


def node_arguments(node: str, apps: tuple[str, ...]) -> tuple[str, ...]:
    words = [word for app in apps for word in ("--app", app)]
    return (*words, "--world-size", "1", "--node-id", node, "--drain-grace-s", "1")


def through(url: str, port: int | None) -> str:
    """``url`` by way of a relay."""
    return url if port is None else url.replace(f":{urlsplit(url).port}", f":{port}")


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def still_there(role: str, below: list[psutil.Process], within_s: float = 10.0) -> list[str]:
    """Which of the processes below a dead one live on."""
    _, alive = psutil.wait_procs(below, timeout=within_s)
    return [f"{process.pid} {command(process)[:100]}, which the dead {role} had started" for process in alive]
