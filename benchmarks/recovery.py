"""What failures cost in time, on a whole local stack with two nodes and durable writes, against what it has to show.

    python -m benchmarks.recovery [--only kill stop redis] [--repeats 5] [--outage-s 60] [--long] [--json FILE]

kill: SIGKILL of a node, until its job is entered on the other one, with leases of 5 and of 15 s. stop: SIGSTOP past the
lease, and what the node still changes when it goes on. redis: Valkey killed under load, and started again after a
minute. --long: a job of six minutes on a broker that gives messages up after one (``--only --long``: that alone). Ends
with 1 where a threshold is missed. Cancels are ``benchmarks.cancels``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.recovering.ground import APP, Ground, ground, hold, until
from stoker.client import Client

MORE_S = 2.0
"""What a lost node may cost beyond its lease."""
TURN_S = 2.5
"""How long a job may wait for a free seat while no bell rings."""
EVERY_S, FOLLOWED = 0.05, 10
BEFORE_S, AFTER_S = 5.0, 5.0
"""With Redis, around the time without it."""
LEFT = (
    *("jobs", "job_heads", "job_attempts", "job_leases", "job_events", "job_outputs", "usage_records"),
    "webhook_deliveries",
)


@dataclass(frozen=True)
class Figure:
    """What was measured, in words, and whether it is what it has to be."""

    what: str
    value: str
    wanted: str
    is_met: bool

    def __str__(self) -> str:
        return f"{'met   ' if self.is_met else 'MISSED'} {self.what}: {self.value} ({self.wanted})"


def killed(folder: Path, lease_s: float, repeats: int) -> Iterator[Figure]:
    """SIGKILL of the node that has a job, at any moment between two heartbeats."""
    took, chance = [], random.Random(7)
    with ground(folder, lease_s=lease_s) as on:
        for repeat in range(repeats):
            held = hold(on, folder / f"kill-{repeat}")
            number = on.node_of(held.job)
            time.sleep(chance.uniform(0, lease_s / 5))
            began = on.kill_node(number)
            took.append(held.entry(2) - began)
            held.end.touch()
            on.client.result(held.job)
            if (outcomes := on.outcomes(held.job)) != ["lease_lost", "succeeded"]:
                raise AssertionError(f"it ended otherwise: {outcomes}")
            on.start_node(number)
    yield Figure(
        f"SIGKILL of a node, lease {lease_s:g} s, until its job is entered on the other",
        f"median {statistics.median(took):.2f} s, most {max(took):.2f} s of {repeats}",
        f"at most {lease_s + MORE_S:g} s",
        max(took) <= lease_s + MORE_S,
    )


def stopped(folder: Path, repeats: int) -> Iterator[Figure]:
    """SIGSTOP past the lease: the app goes on beside its node, and has words and a file for it when it wakes."""
    changed: list[str] = []
    left = 0
    with ground(folder, lease_s=5.0) as on:
        for repeat in range(repeats):
            held = hold(on, folder / f"stop-{repeat}")
            number = on.node_of(held.job)
            zombie = on.nodes[number]
            os.kill(zombie.pid, signal.SIGSTOP)
            held.entry(2)
            held.end.touch()
            on.client.result(held.job)
            before = on.all_rows(LEFT)
            os.kill(zombie.pid, signal.SIGCONT)
            until(lambda log=zombie.log: "attempt_discarded" in log.read_text(), "the zombie to give up")  # type: ignore[misc]
            zombie.stop()
            zombie.log.unlink()
            after = on.all_rows(LEFT)
            changed += [table for table in LEFT if before[table] != after[table]]
            left += on.delete_objects(held.job, attempt=1)
            if (outcomes := on.outcomes(held.job)) != ["lease_lost", "succeeded"]:
                raise AssertionError(f"it ended otherwise: {outcomes}")
            on.start_node(number)
    yield Figure(
        f"SIGSTOP past the lease, {repeats} times: tables changed by the node that woke up",
        f"{len(changed)} of {repeats * len(LEFT)} {changed or ''}".strip(),
        "none: result, events, outputs and usage are refused",
        not changed,
    )
    yield Figure("  objects of its attempt that are left", str(left), "none", left == 0)


def without_redis(folder: Path, outage_s: float) -> Iterator[Figure]:
    """Twenty jobs a second, Valkey killed under them and started again."""
    refused: list[str] = []
    took: list[float] = []
    ids: list[UUID] = []
    gone = back = 0.0

    def post() -> None:
        posted = time.monotonic()
        try:
            ids.append(on.client.submit(APP, {}).id)
        except Exception as error:  # noqa: BLE001 - whatever it is, a caller saw it
            refused.append(repr(error))
        took.append(time.monotonic() - posted)
        if len(ids) % FOLLOWED == 1:
            follow(ids[-1])

    with ground(folder, lease_s=15.0) as on, following(on) as follow:
        held = hold(on, folder / "redis")
        follow(held.job)
        began = due = time.monotonic()
        with ThreadPoolExecutor(16) as posting:
            while (now := time.monotonic() - began) < BEFORE_S + outage_s + AFTER_S:
                if not gone and now > BEFORE_S:
                    gone = time.time()
                    os.kill(on.running.engines.pids["valkey"], signal.SIGKILL)
                if not back and now > BEFORE_S + outage_s:
                    on.restart_redis()
                    back = time.time()
                time.sleep(max(0.0, due - time.monotonic()))
                due += EVERY_S
                posting.submit(post)
        held.end.touch()
        for each in (held.job, *ids):
            on.client.result(each)
        waits = on.rows(
            "SELECT extract(epoch FROM t.claimed_at - j.available_at)::float8 AS s FROM jobs j "
            "JOIN job_attempts t ON t.job_id = j.id AND t.attempt = 1 "
            "WHERE j.created_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)",
            gone,
            back,
        )
        heard = follow.heard()
        missed = sum(seqs != on.event_seqs(job) for job, seqs in heard.items())
        tries = on.rows("SELECT count(*) FILTER (WHERE attempt > 1) AS again, count(*) AS jobs FROM jobs")[0]
    seconds = sorted(row["s"] for row in waits)
    yield Figure(
        f"Redis gone for {outage_s:g} s, {1 / EVERY_S:g} jobs a second: POSTs that failed",
        f"{len(refused)} of {len(took)}, slowest answer {max(took) * 1000:.0f} ms {refused[:1] or ''}".strip(),
        "none",
        not refused,
    )
    yield Figure(
        "  posted meanwhile, from the POST to the start",
        f"p50 {statistics.median(seconds):.2f} s, p99 {seconds[int(len(seconds) * 0.99)]:.2f} s, "
        f"most {seconds[-1]:.2f} s of {len(seconds)}",
        f"at most {TURN_S:g} s",
        seconds[-1] <= TURN_S,
    )
    yield Figure(
        "  streams that missed or repeated a row event",
        f"{missed} of {len(heard)}, {sum(map(len, heard.values()))} rows",
        "none",
        missed == 0,
    )
    yield Figure("  jobs that ran twice", f"{tries['again']} of {tries['jobs']}", "none", tries["again"] == 0)


def long_job(folder: Path, run_s: float) -> Iterator[Figure]:
    """A job that lasts many times as long as the broker waits for a message to be acknowledged."""
    module = "benchmarks.recovering.short_visibility"
    with ground(folder, lease_s=15.0, module=module) as on:
        held = hold(on, folder / "long")
        threading.Event().wait(run_s)
        held.end.touch()
        state = str(on.client.result(held.job).state)
        tries = len(on.outcomes(held.job))
    yield Figure(
        f"a job of {run_s:g} s with a visibility timeout of 60 s: attempts, entries",
        f"{tries}, {len(held.entries)}, {state}",
        "1, 1, succeeded",
        (tries, len(held.entries), state) == (1, 1, "succeeded"),
    )


# Smaller pieces.


class Follow:
    """Clients of event streams, each in a thread, to the end of its job."""

    def __init__(self, on: Ground, pool: ThreadPoolExecutor) -> None:
        self._on, self._pool, self._heard = on, pool, dict[UUID, Any]()

    def __call__(self, job: UUID) -> None:
        if job not in self._heard:
            self._heard[job] = self._pool.submit(self._follow, job)

    def heard(self) -> dict[UUID, list[int]]:
        return {job: each.result() for job, each in self._heard.items()}

    def _follow(self, job: UUID) -> list[int]:
        stack = self._on.running.stack
        with Client(stack.api_url, stack.api_key) as client:
            ids = [event.id.split(".") for event in client.events(job)]
        return [int(seq) for seq, _, n in ids if n == "0"]


@contextmanager
def following(on: Ground) -> Iterator[Follow]:
    with ThreadPoolExecutor(32) as pool:
        yield Follow(on, pool)


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=["kill", "stop", "redis"], default=["kill", "stop", "redis"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--outage-s", type=float, default=60.0)
    parser.add_argument("--long", action="store_true", help="also a job of six minutes")
    parser.add_argument("--long-s", type=float, default=360.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}", flush=True)
    parts: list[Callable[[Path], Iterator[Figure]]] = []
    if "kill" in options.only:
        parts += [lambda to: killed(to, 5.0, options.repeats), lambda to: killed(to, 15.0, options.repeats)]
    if "stop" in options.only:
        parts.append(lambda to: stopped(to, options.repeats))
    if "redis" in options.only:
        parts.append(lambda to: without_redis(to, options.outage_s))
    if options.long:
        parts.append(lambda to: long_job(to, options.long_s))
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder:
        Path(folder).chmod(0o755)
        for number, part in enumerate(parts):
            for figure in part(Path(folder) / str(number)):
                print(figure, flush=True)
                figures.append(figure)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    print(f"{sum(figure.is_met for figure in figures)} of {len(figures)} met, load {os.getloadavg()[0]:.1f}")
    return int(not all(figure.is_met for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
