"""``python -m tests.soak``: a soak of a runner of two ranks, then of one; exits with 1 where something is not right."""

from __future__ import annotations

import argparse
import asyncio
import collections
import logging
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.soak.bounds import Verdict, table
from tests.soak.ledger import WrongAnswer
from tests.soak.plan import plan
from tests.soak.soak import Soak

# Of all calls so many go to two ranks.
SHARE_OF_TWO = 2 / 3


def main() -> int:
    """Soak, and report."""
    asked = arguments()
    seed = secrets.randbelow(10**9) if asked.seed is None else asked.seed
    print(
        f"seed {seed}, {asked.calls:,} calls: ./run soak --calls {asked.calls} --seed {seed} repeats them", flush=True
    )
    began = time.monotonic()
    verdicts: list[Verdict] = []
    answers: collections.Counter[str] = collections.Counter()
    restarts = 0
    logging.getLogger("worker_node.distributed").setLevel(logging.ERROR)  # thousands of lines of ranks
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        # The runners' temporary files alone, whatever else runs on the machine.
        tempfile.tempdir = os.environ["TMPDIR"] = name
        for world_size, share in ((2, SHARE_OF_TWO), (1, 1 - SHARE_OF_TWO)):
            calls = max(1, round(asked.calls * share))
            soak = Soak(world_size, max(asked.every or calls // 120, 8), Path(name))
            kills = None if asked.kills is None else max(1, round(asked.kills * share))
            try:
                asyncio.run(soak.run(plan(seed, calls, world_size, kills)))
            except WrongAnswer as exc:
                print(f"world size {world_size}, after {soak.calls:,} calls: {exc}")
                return 1
            verdicts += soak.verdicts()
            answers += soak.ledger.answers
            restarts += soak.restarts
        left = [str(path) for path in Path(name).rglob("*")]
        tempfile.tempdir = None
    children = psutil.Process().children(recursive=True)
    verdicts += [Verdict("left at the end: files", len(left), 0, "more", 1)]
    verdicts += [Verdict("left at the end: processes", len(children), 0, "more", 1)]
    print("\nanswers: " + ", ".join(f"{how} {count:,}" for how, count in answers.most_common()))
    print(f"{answers.total():,} calls, each answered once, {restarts} restarts, {time.monotonic() - began:,.0f} s\n")
    print(table(verdicts))
    return int(any(each.is_broken for each in verdicts))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./run soak", description="Call a runner many times and look for leaks.")
    parser.add_argument("--calls", type=int, default=30_000)
    parser.add_argument("--seed", type=int, help="repeat the calls of an earlier soak")
    parser.add_argument("--kills", type=int, help="kill so many ranks, instead of some in a thousand calls")
    parser.add_argument("--every", type=int, help="calls between two samples")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
