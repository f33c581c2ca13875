"""Our runner beside fal.distributed, a raw ZMQ round trip and bare torch, in one run, against what it has to show.

    python benchmarks/runner.py [--world-sizes 1 2] [--json FILE] [--fal-site FOLDER] [--quick]

Ends with 1 where a threshold is missed, or could not be judged because fal is not there. fal is installed into an
environment of its own under .stoker/benchmarks, once; --fal-site names a folder that has its packages already
(``pip install --target``), for machines without a network. Where there is no GPU both run on gloo, fal by a patch in
``benchmarks/peers/theirs.py``; where there are GPUs, both run on NCCL. --quick shows that the benchmark itself works.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

# As a script it finds its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import bare, fal_environment, report
from benchmarks.peers.figures import Figures
from benchmarks.peers.process import PeerFailed
from benchmarks.peers.session import QUICK, Counts, Fal, Session
from benchmarks.peers.thresholds import Verdict, verdicts

START_SIZES = {1, 2, 4}


def main() -> int:
    """Run all of it."""
    options = arguments()
    hardware = bare.hardware()
    machine = described(hardware)
    print(machine)
    fal, fal_said = (None, "left out") if options.quick else found_fal(options.fal_site)
    print(f"fal {fal_said}\n\n{report.LEGEND}\n", flush=True)
    counts = QUICK if options.quick else Counts(repeats=options.repeats)
    gpus = int(hardware["gpus"])
    starts = set() if options.quick else {size for size in START_SIZES if not gpus or size <= gpus}
    figures, judged = Figures(), list[Verdict]()
    for size in sorted({*options.world_sizes} | starts):
        began, load = time.monotonic(), os.getloadavg()[0]
        calls = size in options.world_sizes
        Session(figures, size, counts).run(fal, calls=calls)
        print("\n".join(report.table(figures, size)))
        these = list(verdicts(figures, size, calls=calls))
        judged += these
        print("".join(f"  {verdict}\n" for verdict in these), end="")
        print(
            f"  ({time.monotonic() - began:.0f} s, load average {load:.1f} to {os.getloadavg()[0]:.1f})\n", flush=True
        )
    missed = [verdict for verdict in judged if not verdict.is_met]
    print(f"{len(judged) - len(missed)} of {len(judged)} thresholds met")
    if options.json:
        told = {"machine": machine, "fal": fal_said, "figures": figures.described()}
        told["verdicts"] = [{**vars(verdict), "text": str(verdict)} for verdict in judged]
        options.json.write_text(json.dumps(told, indent=1))
    return int(bool(missed) and not options.quick)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world-sizes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=Counts.repeats)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--fal-site", type=Path, help="a folder with fal's packages, instead of installing them")
    parser.add_argument("--quick", action="store_true", help="few of each and no fal; a missed threshold is no failure")
    options = parser.parse_args()
    if options.quick:
        options.world_sizes = options.world_sizes[:1]
    return options


def found_fal(site: Path | None) -> tuple[Fal | None, str]:
    """Return where fal is, and its version or why there is none."""
    try:
        python = sys.executable if site else fal_environment.python()
        version = fal_environment.version(python, site)
    except fal_environment.FalMissing as exc:
        return None, f"is missing, and what is compared with it counts as missed: {exc}"
    return Fal(python, [site.resolve()] if site else []), version


def described(hardware: dict[str, str]) -> str:
    """Say what this runs on."""
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    gpus = f"{hardware['gpus']} {hardware['gpu']}" if hardware["gpu"] else "no GPU, gloo"
    cores = f"{os.cpu_count()} cores ({models[0] if models else platform.machine()})"
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"{cores}, {gpus}, torch {hardware['torch']}, Python {platform.python_version()}, load average {load}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PeerFailed as exc:
        sys.exit(f"{exc}")
