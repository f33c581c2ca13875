"""One API process under load: thousands of event streams, polls, submits, and a replica that ends.

    python benchmarks/api.py [--only streams,polls,submits,replicas] [--no-steps] [--json FILE] [--quick]

On engines of its own with durable writes. The API has one core, what loads it the other, engines share both; each
process's share of a core is printed, the load generator's too. Ends with 1 where a threshold is missed. --quick shows
that the benchmark itself works: little of each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

# As a script it finds its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.api_load import fan_out, place, polling, replicas, submitting, thresholds
from benchmarks.api_load.fan_out import FanOut
from benchmarks.api_load.place import Place
from benchmarks.api_load.settings import QUICK, Counts
from benchmarks.peers.thresholds import Verdict
from stoker.local import place as data_place
from stoker.local.engines import start_engines

PARTS = ("streams", "polls", "submits", "replicas")


def main() -> int:
    """Run all of it."""
    options = arguments()
    machine = described()
    print(machine, flush=True)
    counts = QUICK if options.quick else Counts()
    if options.no_steps:
        counts = replace(counts, steps=())
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder:
        Path(folder).chmod(0o755)
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        with start_engines(data_dir, want=("postgres", "valkey"), environ=own_environ()) as engines:
            print("engines: " + ", ".join(f"{name} {version}" for name, version in engines.versions.items()))
            figures, judged = asyncio.run(run(engines, options.only, counts))
        data_place.discard(data_dir)
    print("\n" + "\n".join(f"  {verdict}" for verdict in judged))
    missed = [verdict for verdict in judged if not verdict.is_met]
    print(f"{len(judged) - len(missed)} of {len(judged)} thresholds met; load average now {os.getloadavg()[0]:.1f}")
    if options.json:
        verdicts = [{**vars(verdict), "text": str(verdict)} for verdict in judged]
        options.json.write_text(json.dumps({"machine": machine, **figures, "verdicts": verdicts}, indent=1))
    return int(bool(missed) and not options.quick)


async def run(engines: Any, only: list[str], counts: Counts) -> tuple[dict[str, Any], list[Verdict]]:
    """Measure each part, print what comes, and judge it."""
    figures: dict[str, Any] = {}
    judged: list[Verdict] = []
    async with place.made(engines) as here:
        for part in only:
            print(f"\n{part}:", flush=True)
            found = [each async for each in printed(part, here, counts)]
            judged += verdicts(part, found)
            figures[part] = [asdict(each) for each in found]
    return figures, judged


async def printed(part: str, here: Place, counts: Counts) -> Any:
    """Yield what a part has measured, and print it."""
    measures = {"streams": fan_out, "polls": polling, "submits": submitting, "replicas": replicas}
    async for found in measures[part].measure(here, counts):
        print(f"  {found}", flush=True)
        yield found


def verdicts(part: str, found: list[Any]) -> Iterator[Verdict]:
    """Judge a part."""
    if part == "streams":
        [all_of_it] = [each for each in found if isinstance(each, FanOut)]
        yield from thresholds.of_fan_out(all_of_it)
    elif part == "polls":
        yield from thresholds.of_polls(found)
    elif part == "submits":
        yield from thresholds.of_submits(found)
    else:
        yield from thresholds.of_replicas(found)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--no-steps", action="store_true", help="do not look for the highest rate")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="little of each; a missed threshold is no failure")
    options = parser.parse_args()
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only knows no {', '.join(sorted(unknown))}")
    return options


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
    sys.exit(main())
