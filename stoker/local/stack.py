"""The whole local stack: engines, schema, keys, API, control loop and nodes, as one tree of processes.

It ends as a whole, also when its head is killed. It serves one machine and one data folder; production has its own
supervisors. ``stoker up``, ``stoker demo`` and the tests call it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

from stoker import keys
from stoker.database import make_engine
from stoker.errors import EngineError, Unauthenticated
from stoker.local import part, place
from stoker.local.engines import Engines, start_engines
from stoker.local.gpus import count_gpus
from stoker.local.part import Part, wait_ready
from stoker.local.ports import free_ports, starting_ports
from stoker.local.process import Process
from stoker.local.supervisor import Supervisor, stop_all

STATE_FILE, KEPT_FILE = "state.json", "stack.json"
DEFAULT_APPS = ("worker_node.apps.text_to_image:TextToImage",)
Parts: TypeAlias = dict[str, tuple[Part, Process]]
ADMIN_SCOPES = frozenset({"run", "read", "admin"})
USUAL_WORLD_SIZE = 2


@dataclass(frozen=True)
class Options:
    """What to start. ``environ`` is the parts' environment, and may name engines that replace ours.

    ``world_size`` None is two ranks an app, and one where there is a single GPU.
    """

    data_dir: Path
    apps: tuple[str, ...] = DEFAULT_APPS
    nodes: int = 1
    world_size: int | None = None
    durable: bool = True
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class Stack:
    """Where a running stack is: what ``stoker up --json`` prints."""

    api_url: str
    api_key: str
    admin_key: str
    database_url: str
    redis_url: str
    s3_endpoint_url: str
    data_dir: str
    pids: Mapping[str, int]
    s3_access_key_id: str = ""
    s3_secret_access_key: str = ""
    s3_bucket: str = ""
    warnings: tuple[str, ...] = ()
    metrics_urls: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "pids": dict(self.pids), "metrics_urls": dict(self.metrics_urls)}


class Running:
    """A stack of this process. ``stack`` is always of now: a part that was started again has a new pid."""

    def __init__(
        self, engines: Engines, parts: Parts, api_url: str, kept: Mapping[str, Any], warnings: tuple[str, ...]
    ) -> None:
        self.engines = engines
        self._metrics_urls = {
            role: f"http://127.0.0.1:{port}/metrics"
            for role, (each, _) in parts.items()
            if (port := each.environ.get("STOKER_METRICS_PORT"))
        } | {"api": f"{api_url}/metrics"}
        self._api_url, self._kept, self._warnings = api_url, kept, warnings
        self.supervisor = Supervisor(parts, engines.pids, self.write)

    @property
    def stack(self) -> Stack:
        pids = {role: process.pid for role, process in self.supervisor.processes.items()}
        return Stack(
            api_url=self._api_url,
            api_key=self._kept["api_key"],
            admin_key=self._kept["admin_key"],
            database_url=self.engines.database_url,
            redis_url=self.engines.redis_url,
            s3_endpoint_url=self.engines.s3.endpoint_url,
            data_dir=str(self.engines.data_dir),
            pids={"up": os.getpid(), **self.engines.pids, **pids},
            s3_access_key_id=self.engines.s3.access_key,
            s3_secret_access_key=self.engines.s3.secret_key,
            s3_bucket=self.engines.s3.bucket,
            warnings=self._warnings,
            metrics_urls=self._metrics_urls,
        )

    def leave(self) -> None:
        """Let ``run`` end."""
        self.supervisor.ended.set()

    def write(self) -> None:
        """Write the state file, by which the command line finds this stack."""
        place.write_private(self.engines.data_dir / STATE_FILE, self.stack.to_json())


@contextmanager
def started(options: Options) -> Iterator[Running]:
    """Run the stack while the context lasts: ready when it begins, without a process of ours when it ends.

    Raises:
        EngineError: an engine or a part does not start; what was started is stopped.
    """
    with start_engines(options.data_dir, durable=options.durable, environ=options.environ) as engines:
        environ = {**options.environ, **engines.environment()}
        log_dir = engines.data_dir / "log"
        part.run(Part("migrate", "migrations", log_dir, environ))
        kept = _kept(engines)
        with _starting() as parts:
            with ThreadPoolExecutor() as together:
                api = together.submit(_start_api, parts, environ, log_dir, kept.get("api_port"))
                control_port, *node_ports = free_ports(1 + options.nodes)
                others = [
                    together.submit(_start, parts, each) for each in _nodes(options, environ, log_dir, node_ports)
                ]
                # What the control loop sends names links of the API, whose port is not known before.
                linked = {"STOKER_PUBLIC_URL": api.result(), **environ, **_shown(control_port)}
                others.append(together.submit(_start, parts, Part("control", "api.control", log_dir, linked)))
            api_url = api.result()
            refused = (line for other in others for line in other.result().get("refused", ()))
            warnings = tuple(dict.fromkeys(refused))  # two nodes refuse an app with the same words
            kept["api_port"] = int(api_url.rsplit(":", 1)[1])
            place.write_private(engines.data_dir / KEPT_FILE, kept)
            running = Running(engines, parts, api_url, kept, warnings)
        try:
            running.write()
            yield running
        finally:
            (engines.data_dir / STATE_FILE).unlink(missing_ok=True)
            running.supervisor.close()


@contextmanager
def _starting() -> Iterator[Parts]:
    """A place for parts that are stopped if the start as a whole fails."""
    parts: Parts = {}
    try:
        yield parts
    except BaseException:
        stop_all(process for _, process in parts.values())
        raise


def _shown(port: int) -> dict[str, str]:
    """Several processes share this machine, so none may take the port that the environment names."""
    return {"STOKER_METRICS_HOST": "127.0.0.1", "STOKER_METRICS_PORT": str(port)}


def _nodes(options: Options, environ: Mapping[str, str], log_dir: Path, metrics_ports: Sequence[int]) -> list[Part]:
    world_size = options.world_size or min(USUAL_WORLD_SIZE, count_gpus(options.environ) or USUAL_WORLD_SIZE)
    arguments = [word for app in options.apps for word in ("--app", app)]
    return [
        Part(
            f"node-{number}",
            "worker_node",
            log_dir,
            {**environ, "STOKER_DATA_DIR": str(options.data_dir.absolute() / f"node-{number}"), **_shown(port)},
            arguments=[*arguments, "--world-size", str(world_size)],
        )
        for number, port in enumerate(metrics_ports, start=1)
    ]


def _start(parts: Parts, each: Part) -> Mapping[str, Any]:
    process, reader = each.start()
    parts[each.role] = (each, process)
    return wait_ready(process, reader)


def _start_api(parts: Parts, environ: Mapping[str, str], log_dir: Path, last_port: int | None) -> str:
    def attempt(ports: list[int]) -> str:
        own = {"STOKER_HOST": "127.0.0.1", "STOKER_PORT": str(ports[0])}
        _start(parts, Part("api", "api", log_dir, {**environ, **own}))
        return f"http://127.0.0.1:{ports[0]}"

    return starting_ports(1, [last_port] if last_port else [], attempt)


def _kept(engines: Engines) -> dict[str, Any]:
    """The keys of this stack, made where the database does not know them, and the API's last port."""
    file = engines.data_dir / KEPT_FILE
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name, scopes in (("api_key", frozenset({"run"})), ("admin_key", ADMIN_SCOPES)):
        kept[name] = asyncio.run(_key(engines.database_url, kept.get(name), scopes))
    place.write_private(file, kept)
    return kept


async def _key(database_url: str, known: str | None, scopes: frozenset[str]) -> str:
    db = make_engine(database_url, application_name="stoker up", pool_size=1)
    try:
        if known:
            with suppress(Unauthenticated):
                await keys.verify(db, known)
                return known
        return (await keys.create(db, scopes=scopes, name="stoker up")).key
    finally:
        await db.dispose()


def run(options: Options, on_ready: Callable[[Running], None]) -> None:
    """Run the stack until SIGINT, SIGTERM, SIGHUP or ``leave``. For a process's main thread.

    Raises:
        EngineError: it does not start, or an engine ended while it ran.
    """
    stop = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            return
        stop.set()
        raise KeyboardInterrupt

    former = {each: signal.signal(each, ask) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with suppress(KeyboardInterrupt), started(options) as running:
            on_ready(running)
            running.supervisor.ended.wait()
            if lost := running.supervisor.lost_engine:
                raise EngineError(
                    f"{lost} ended, so the stack cannot go on", hint=f"Its output is in {options.data_dir / 'log'}."
                )
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
