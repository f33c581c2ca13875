"""``python -m tests.fuzz``: thousands of requests to every operation; exits with 1 where one is answered wrongly."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

from stoker import log
from stoker.local import place
from stoker.local.engines import start_engines
from tests.fuzz.campaign import Report, run, summary
from tests.fuzz.passes import EXPECTED, PASSES
from tests.fuzz.stand import stand

CASES = 5_000
EXAMPLES = 20
"""Of each operation in a pass, besides those that follow from the document's bounds."""


def main() -> int:
    """Fuzz, and report."""
    asked = arguments()
    seed = secrets.randbelow(10**9) if asked.seed is None else asked.seed
    passes = [each for each in PASSES if asked.only in (None, each.name)]
    only = "" if asked.only is None else f" --only {asked.only}"
    print(f"seed {seed}: ./run fuzz --cases {asked.cases} --seed {seed}{only} asks the same again", flush=True)
    log.configure("text", service="fuzz", level=logging.ERROR)
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DATABASE_URL", "REDIS_URL", "S3_", "STOKER_"))
    }
    folder = Path(tempfile.mkdtemp(prefix="stoker-fuzz-"))
    folder.chmod(0o711)  # Postgres may have to run as another user
    report, began, rounds = Report(), time.monotonic(), 0
    with start_engines(folder, durable=False, environ=environ) as engines:
        while report.cases.total() < asked.cases:
            for each in passes:
                with stand(engines) as served:  # a new one each time: one pass deletes what another one asks for
                    run(each, served, seed + rounds, EXAMPLES, report)
                print(f"{each.name}: {report.cases.total():,} cases, {time.monotonic() - began:,.0f} s", flush=True)
            rounds += 1
    place.discard(folder)
    print(f"\n{report.table()}\n")
    print("\n".join(summary(report, passes)))
    print("by phase: " + ", ".join(f"{name} {count:,}" for name, count in report.phases.most_common()))
    for (operation, status), reason in EXPECTED.items():
        print(f"may also be answered to what fits the document: {operation} {status}, {reason}")
    for each in passes:
        for check, reason in each.off.items():
            print(f"left out of {each.name}: {check}, {reason}")
    unreached = report.unreached() if asked.only is None else []
    for operation in unreached:
        print(f"took nothing that it was asked for: {operation}")
    for fault in report.faults.values():
        print(f"\n{'-' * 80}\n{fault}")
    took = time.monotonic() - began
    print(f"\n{report.cases.total():,} cases in {took:,.0f} s, {len(report.faults)} kinds of faults")
    return int(bool(report.faults or unreached))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./run fuzz", description="Ask the API whatever its document allows, and not."
    )
    parser.add_argument("--cases", type=int, default=CASES, help="at least so many")
    parser.add_argument("--seed", type=int, help="make the requests of an earlier run")
    parser.add_argument("--only", choices=[each.name for each in PASSES], help="one pass alone")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
