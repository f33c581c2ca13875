"""The ground: real engines, an API, a control loop and two nodes that may be killed and stopped.

The nodes are this module's own: a stack would start a killed one again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg
from psycopg.rows import dict_row

from stoker.client import Client
from stoker.local import place, valkey
from stoker.local.binaries import KINDS, find
from stoker.local.part import Part, wait_ready
from stoker.local.process import Process
from stoker.local.stack import Options, Running, started
from stoker.storage import Storage

APP, IMPORTED = "benchmarks/holder", "benchmarks.recovering.holder:Holder"
PATIENCE_S = 120.0
LOOK_S = 0.005
LIVE = "SELECT count(*) AS n FROM nodes WHERE stoker_is_live(state, heartbeat_at, lease_s) AND state = 'ready'"


@dataclass
class Ground:
    """``run`` is what is measured on; a node's process is in ``nodes`` by its number."""

    folder: Path
    running: Running
    client: Client
    rows: Callable[..., list[dict[str, Any]]]
    lease_s: float
    module: str = "worker_node"
    nodes: dict[int, Process] = field(default_factory=dict)

    def start_node(self, number: int) -> None:
        """Start it, or start it again with its id: it is ready when this returns."""
        folder = self.folder / f"node-{number}"
        environ = {
            **os.environ,
            **self.running.engines.environment(),
            "STOKER_DATA_DIR": str(folder),
            "STOKER_LEASE_S": f"{self.lease_s:g}",
            "STOKER_HEARTBEAT_S": f"{self.lease_s / 5:g}",
            "OMP_NUM_THREADS": "1",
        }
        part = Part(f"node-{number}", self.module, self.folder / "log", environ, ("--app", IMPORTED))
        process, reader = part.start()
        wait_ready(process, reader)
        self.nodes[number] = process

    def family(self, number: int) -> list[psutil.Process]:
        """The node's process and all below it."""
        head = psutil.Process(self.nodes[number].pid)
        return [head, *head.children(recursive=True)]

    def kill_node(self, number: int) -> float:
        """SIGKILL to the node's process alone; when that was."""
        began = time.time()
        os.kill(self.nodes[number].pid, signal.SIGKILL)
        return began

    def node_of(self, job_id: UUID) -> int:
        """Which node's job it is, by the id that each keeps in its folder."""
        [row] = self.rows("SELECT node_id FROM job_leases WHERE job_id = %s", job_id)
        return next(
            n for n in self.nodes if (self.folder / f"node-{n}" / "node-id").read_text().strip() == row["node_id"]
        )

    def outcomes(self, job_id: UUID) -> list[str]:
        """Of the job's attempts."""
        found = self.rows("SELECT outcome FROM job_attempts WHERE job_id = %s ORDER BY attempt", job_id)
        return [row["outcome"] for row in found]

    def event_seqs(self, job_id: UUID) -> list[int]:
        found = self.rows("SELECT seq FROM job_events WHERE job_id = %s ORDER BY seq", job_id)
        return [row["seq"] for row in found]

    def all_rows(self, tables: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        return {table: self.rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables}

    def delete_objects(self, job_id: UUID, *, attempt: int) -> int:
        """How many objects lay under an attempt's keys."""
        s3 = self.running.engines.s3
        storage = Storage(s3.endpoint_url, s3.access_key, s3.secret_key, s3.bucket, s3.region)
        [row] = self.rows("SELECT tenant_id FROM jobs WHERE id = %s", job_id)
        return asyncio.run(storage.delete_prefix(f"{row['tenant_id']}/{job_id}/{attempt}/"))

    def restart_redis(self) -> None:
        """Start Valkey again where it was."""
        home = self.folder / "data"
        port = int(self.running.engines.redis_url.rsplit(":", 1)[1].split("/")[0])
        binary = find(next(kind for kind in KINDS if kind.role == "valkey"), {})
        password = place.passwords(home)["valkey"]
        self.redis = valkey.start(binary, home, password=password, durable=True, last_ports=[port])
        if self.redis.ports != [port]:
            raise AssertionError("Valkey came back on another port")


@contextmanager
def ground(
    folder: Path, *, lease_s: float, nodes: Sequence[int] = (1, 2), module: str = "worker_node"
) -> Iterator[Ground]:
    """A stack without nodes, and these nodes beside it."""
    data = folder / "data"
    data.mkdir(parents=True)
    environ = {name: value for name, value in os.environ.items() if name != "STOKER_DATA_DIR"}
    with started(Options(data, nodes=0, environ=environ)) as running:
        stack = running.stack
        with (
            psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as watching,
            Client(stack.api_url, stack.api_key) as client,
        ):
            lock = threading.Lock()

            def rows(query: str, *values: Any) -> list[dict[str, Any]]:
                with lock:
                    return watching.execute(query, values).fetchall()

            made = Ground(folder, running, client, rows, lease_s, module)
            try:
                for number in nodes:
                    made.start_node(number)
                yield made
            finally:
                for process in made.nodes.values():
                    process.stop()
                if hasattr(made, "redis"):
                    made.redis.stop()
    place.discard(data)


def until(is_so: Callable[[], Any], what: str) -> Any:
    """What ``is_so`` gives, as soon as it gives something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(LOOK_S)
    return found


@dataclass(frozen=True)
class Held:
    """A job that somebody works on until ``end`` is there."""

    job: UUID
    entered: Path
    end: Path

    @property
    def entries(self) -> list[float]:
        """When it was entered, attempt by attempt."""
        return [float(line) for line in self.entered.read_text().splitlines()] if self.entered.exists() else []

    def entry(self, number: int) -> float:
        """Wait for an entry."""
        found: list[float] = until(lambda: self.entries[number - 1 :], f"entry {number}")
        return found[0]


def hold(on: Ground, folder: Path) -> Held:
    """A job that has been entered."""
    folder.mkdir()
    entered, end = folder / "entered", folder / "end"
    job = on.client.submit(APP, {"entered": str(entered), "until": str(end)}, endpoint="/hold", max_attempts=1)
    held = Held(job.id, entered, end)
    held.entry(1)
    return held
