"""Stoker beside Celery, Celery with SQLAlchemy results, taskiq, dramatiq and procrastinate, in one run.

    python benchmarks/queues.py [--repeats 3] [--burst 10000] [--only latency,idle,claims] [--rows 1000 100000]
                                [--json FILE] [--quick]

All of them on the same PostgreSQL and Valkey, started for this run with durable writes, in turns. The peers are
installed into an environment of their own under .stoker/benchmarks, once. No-op jobs on one consumer slot and on
eight; a burst of submits; claims from long queues; and what an idle stack costs. Ends with 1 where a threshold is
missed. --quick shows that the benchmark itself works: few of each, and no peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

# As a script it finds its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers.figures import Figures
from benchmarks.peers.process import PeerFailed
from benchmarks.queue_peers import claims, environment, idle, report
from benchmarks.queue_peers.settings import PEERS, QUICK, Counts
from benchmarks.queue_peers.thresholds import verdicts
from benchmarks.queue_peers.turns import Turns
from stoker.local import place
from stoker.local.engines import Engines, start_engines

PARTS = ("latency", "idle", "claims")
SLOTS = (1, 8)
CLAIMS, QUICK_CLAIMS = 400, 16


def main() -> int:
    """Run all of it."""
    options = arguments()
    machine = described()
    print(machine, flush=True)
    python, peers_said = (None, "left out") if options.quick else found_peers()
    print(f"peers: {peers_said}\n\n{report.LEGEND}\n", flush=True)
    counts = QUICK if options.quick else Counts(repeats=options.repeats, burst=options.burst)
    figures, idle_cost = Figures(), dict[str, dict[str, float]]()
    claimed: dict[str, dict[int, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder:
        Path(folder).chmod(0o755)
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        with start_engines(data_dir, environ=own_environ()) as engines:
            print("engines: " + ", ".join(f"{name} {version}" for name, version in engines.versions.items()))
            turns = Turns(engines, figures, counts, python)
            if "latency" in options.only:
                side_by_side(turns, counts, has_peers=python is not None)
                print("\n".join(line for slots in SLOTS for line in (*report.table(figures, slots), "")))
            if "idle" in options.only:
                with turns.stack(1) as (running, _):
                    idle_cost = idle.cost(engines, running, counts.idle_s)
                print("\n".join(report.idle_lines(idle_cost)), flush=True)
            if "claims" in options.only:
                claim_times(engines, options.rows, QUICK_CLAIMS if options.quick else CLAIMS, claimed)
        place.discard(data_dir)
    judged = list(verdicts(figures, claimed))
    print("\n" + "\n".join(f"  {verdict}" for verdict in judged))
    missed = [verdict for verdict in judged if not verdict.is_met]
    print(f"{len(judged) - len(missed)} of {len(judged)} thresholds met; load average now {os.getloadavg()[0]:.1f}")
    if options.json:
        told: dict[str, object] = {"machine": machine, "peers": peers_said, "idle": idle_cost, "claims": claimed}
        told["figures"] = [{"slots": each.pop("world_size"), **each} for each in figures.described()]
        told["verdicts"] = [{**vars(verdict), "text": str(verdict)} for verdict in judged]
        options.json.write_text(json.dumps(told, indent=1))
    return int(bool(missed) and not options.quick)


def side_by_side(turns: Turns, counts: Counts, *, has_peers: bool) -> None:
    """Give each system its turn in each repeat, first on one slot, then on eight."""
    for slots in SLOTS:
        for repeat in range(counts.repeats):
            began, load = time.monotonic(), os.getloadavg()[0]
            turns.stoker(slots, repeat)
            for peer in PEERS if has_peers else ():
                turns.peer(peer, slots, repeat)
            took = f"{time.monotonic() - began:.0f} s, load average {load:.1f} to {os.getloadavg()[0]:.1f}"
            print(f"  (slots {slots}, repeat {repeat + 1}: {took})", flush=True)


def claim_times(engines: Engines, rows: list[int], count: int, claimed: dict[str, dict[int, float]]) -> None:
    """Measure claims and print them as they come."""
    for name, queued, p50, p99 in claims.measure(engines.database_url, rows, count):
        claimed[name][queued] = p50
        load = os.getloadavg()[0]
        print(
            f"claim, {name:22} {queued:>9,} rows: p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  (load {load:.1f})", flush=True
        )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=Counts.repeats)
    parser.add_argument("--burst", type=int, default=Counts.burst, help="submits in the burst")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000], help="queued, for claims")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="few of each, no peers; a missed threshold is no failure")
    options = parser.parse_args()
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only knows no {', '.join(sorted(unknown))}")
    if options.quick:
        options.rows = [1_000]
    return options


def found_peers() -> tuple[str | None, str]:
    """Return the peers' interpreter, and their versions or why there are none."""
    try:
        python = environment.python()
    except environment.PeersMissing as exc:
        return None, f"are missing, and what is compared with them counts as missed: {exc}"
    return python, ", ".join(f"{name} {version}" for name, version in environment.versions(python).items())


def own_environ() -> dict[str, str]:
    """Return this environment without what would name other engines."""
    foreign = ("DATABASE_URL", "REDIS_URL", "S3_", "STOKER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign) or name.endswith("_BIN")}


def described() -> str:
    """Say what this runs on."""
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    cores = f"{os.cpu_count()} cores ({models[0] if models else platform.machine()})"
    return f"{cores}, Python {platform.python_version()}, load average {load}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PeerFailed as exc:
        sys.exit(f"{exc}")
