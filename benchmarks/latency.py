"""From POST to the first rank call, and from a rank to the caller's event stream; and what memory each process takes.

    python -m benchmarks.latency [--jobs 200] [--every-s 0.2]

Starts a whole local stack of its own on real engines, with durable writes, sends paced jobs to an app of two ranks, one
at a time, and prints tables. All clocks are this machine's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from stoker.client import Client
from stoker.events import EventKind
from stoker.local import place
from stoker.local.stack import Options, Running, started

APP = "benchmarks/stamper"
WARM_UP_JOBS = 5


@dataclass(frozen=True)
class Sample:
    """One job, in seconds. ``event`` is from the rank to the reader of the stream, all others are since the POST."""

    answered: float
    called: float
    event: float
    final: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--every-s", type=float, default=0.2)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder:
        Path(folder).chmod(0o755)
        environ = {name: value for name, value in os.environ.items() if name != "STOKER_DATA_DIR"}
        environ |= {"OMP_NUM_THREADS": "1"}
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        with started(Options(data_dir, apps=("benchmarks.stamps:Stamper",), environ=environ)) as running:
            samples = list(measure(running, options.jobs, options.every_s))
            console.print(latencies(samples))
            console.print(memory(running))
        place.discard(data_dir)


def measure(running: Running, jobs: int, every_s: float) -> Iterator[Sample]:
    """Paced jobs, each followed to its end before the next is due."""
    with Client(running.stack.api_url, running.stack.api_key) as client:
        for _ in range(WARM_UP_JOBS):
            one_job(client)
        due = time.monotonic()
        for _ in range(jobs):
            time.sleep(max(0.0, due - time.monotonic()))
            due += every_s
            yield one_job(client)


def one_job(client: Client) -> Sample:
    posted = time.time()
    job = client.submit(APP, {})
    answered = time.time()
    event = float("nan")
    called = 0.0
    for each in client.events(job.id):
        now = time.time()
        if each.kind is EventKind.PROGRESS:
            event = now - each.data["sent_at"]
        if each.data.get("result"):
            called = each.data["result"]["called_at"]
    return Sample(answered - posted, called - posted, event, time.time() - posted)


def latencies(samples: Sequence[Sample]) -> Table:
    """Quantiles in milliseconds."""
    table = Table("", "n", "p50 ms", "p95 ms", "p99 ms", "max ms", title="Latency")
    for name, title in (
        ("answered", "POST to its answer"),
        ("called", "POST to the first rank call"),
        ("event", "rank's event to the SSE reader"),
        ("final", "POST to the final event"),
    ):
        values = sorted(getattr(sample, name) for sample in samples if getattr(sample, name) >= 0)
        quantiles = [values[min(int(len(values) * q), len(values) - 1)] for q in (0.5, 0.95, 0.99, 1)]
        table.add_row(title, str(len(values)), *(f"{value * 1000:.1f}" for value in quantiles))
    return table


def memory(running: Running) -> Table:
    """Peak resident memory by process, and what it shares with nobody."""
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for role, pid in running.stack.pids.items():
        process = psutil.Process(pid)
        rows[role].append(_memory(process))
        if role == "up":
            continue
        for child in process.children(recursive=True):
            rows[f"{role}: {_kind(child)}"].append(_memory(child))
    table = Table("process", "n", "peak RSS MiB (largest)", "own MiB (sum, now)", title="Memory")
    for role, measured in rows.items():
        peak, own = max(one[0] for one in measured), sum(one[1] for one in measured)
        table.add_row(role, str(len(measured)), f"{peak:.0f}", f"{own:.0f}")
    return table


def _memory(process: psutil.Process) -> tuple[float, float]:
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return peak_kib / 1024, process.memory_full_info().uss / 2**20


def _kind(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    for known in ("worker_node.apphost", "worker_node.distributed"):
        if known in words:
            return known
    return process.name()


if __name__ == "__main__":
    main()
