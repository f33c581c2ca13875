"""One system's turn: its processes on the shared engines, a fresh database, an empty Redis, and what is measured."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.databases import own_database
from benchmarks.peers.figures import Figures, Key
from benchmarks.queue_peers.caller import Caller, caller, process
from benchmarks.queue_peers.settings import CLIENTS, RATE, Counts, Peer
from stoker.local.engines import Engines
from stoker.local.stack import Options, Running, started

ONE_SEAT, NO_RANKS = "benchmarks.queue_peers.noop_apps:Warm", "benchmarks.queue_peers.noop_apps:Light"


class Turns:
    """All turns of a run."""

    def __init__(self, engines: Engines, figures: Figures, counts: Counts, peers_python: str | None) -> None:
        self._engines, self._figures, self._counts, self._python = engines, figures, counts, peers_python

    def peer(self, peer: Peer, slots: int, repeat: int) -> None:
        """Measure a peer."""
        assert self._python is not None
        with self._place(peer.name) as env:
            command = [self._python, "-m", *peer.worker(slots)]
            with caller(peer.module, self._python, env) as asked, process(command, self._python, env):
                self._measure(asked, peer.name, slots, repeat)

    def stoker(self, slots: int, repeat: int) -> None:
        """Measure Stoker: a seat of an app with a warm rank, or eight seats of one without ranks."""
        with self.stack(slots) as (running, env):
            asked_of = {"stoker": "/plain", "stoker, warm rank": "/"} if slots == 1 else {"stoker": "/"}
            app = "benchmarks/warm" if slots == 1 else "benchmarks/light"
            for name, endpoint in reversed(asked_of.items()):
                told = {"BENCH_APP": app, "BENCH_ENDPOINT": endpoint, "BENCH_API_KEY": running.stack.api_key}
                told["BENCH_API_URL"] = running.stack.api_url
                with caller("stoker", sys.executable, env | told) as asked:
                    self._measure(asked, name, slots, repeat, burst=name == "stoker")

    @contextmanager
    def stack(self, slots: int) -> Iterator[tuple[Running, dict[str, str]]]:
        """Run Stoker's processes on the shared engines."""
        with self._place("stoker") as env:
            apps = (ONE_SEAT,) if slots == 1 else (NO_RANKS,)
            environ = {**os.environ, **self._engines.environment(), "DATABASE_URL": env["BENCH_DATABASE_URL"]}
            environ |= {"OMP_NUM_THREADS": "1", "REDIS_URL": env["BENCH_REDIS_URL"]}
            options = Options(Path(env["BENCH_FOLDER"]), apps=apps, world_size=1, environ=environ)
            with started(options) as running:
                yield running, env

    @contextmanager
    def _place(self, name: str) -> Iterator[dict[str, str]]:
        """Make room on the engines."""
        server = self._engines.redis_url.rsplit("/", 1)[0] if self._engines.redis_url.count("/") > 2 else None
        base = server or self._engines.redis_url
        with redis.Redis.from_url(self._engines.redis_url) as client:
            client.flushall()
        with own_database(self._engines.database_url) as database, tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            yield {
                "BENCH_SYSTEM": name,
                "BENCH_REDIS_URL": f"{base}/0",
                "BENCH_RESULTS_URL": f"{base}/1",
                "BENCH_DATABASE_URL": database,
                "BENCH_FOLDER": folder,
            }

    def _measure(self, asked: Caller, name: str, slots: int, repeat: int, *, burst: bool = True) -> None:
        counts = self._counts

        def keep(measure: str, samples: list[float]) -> None:
            self._figures.add(Key(slots, measure, name), repeat, samples)

        asked.ask("followed", count=counts.warm_up, rate=RATE)
        if slots == 1:
            paced: Mapping[str, list[float]] = asked.ask("paced", count=counts.paced, rate=RATE)
            keep("call to function, ms", paced["entry"])
            keep("the call itself, ms", paced["submit"])
            if name.startswith("stoker"):
                for stage, taken in asked.ask("stages").items():
                    keep(f"of it {stage}, ms", taken)
            keep("call to result, ms", asked.ask("followed", count=counts.followed, rate=RATE))
        rates = asked.ask("end_to_end", count=counts.jobs, clients=CLIENTS)
        keep("end to end, jobs/s", [rates["jobs"]])
        keep("submitted meanwhile, jobs/s", [rates["submits"]])
        if slots == 1 and burst and repeat == 0:
            told = asked.ask("burst", count=counts.burst, clients=CLIENTS)
            keep(f"burst of {counts.burst:,}, jobs/s", [told["rate"]])
            keep("a call of the burst, ms", told["calls"])
