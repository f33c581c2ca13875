"""``python -m tests.chaos``: clients and faults for some minutes; exits with 1 where a rule is broken."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stoker.local import place
from tests.chaos import checker, evidence
from tests.chaos.checker import Finding
from tests.chaos.client import TENANTS, Clients
from tests.chaos.faults import KINDS, Chaos
from tests.chaos.history import History
from tests.chaos.wishes import Mix, wishes
from tests.chaos.world import World

RATE, EVERY_S, LEASE_S = 4.7, 10.0, 3.0
SETTLES_S = 240.0
"""A webhook whose first try died with the control loop is tried again after a minute, then five seconds, thirty ..."""
SAY_EVERY_S = 30.0


def main() -> int:
    """Run, and report."""
    asked = arguments()
    seed = secrets.randbelow(10**9) if asked.seed is None else asked.seed
    again = f"./run chaos --minutes {asked.minutes:g} --seed {seed}"
    print(f"seed {seed}: {again} repeats what was asked for and done, though not its moments", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="stoker-chaos-"))
    folder.chmod(0o711)  # Postgres may have to run as another user
    wrong = asyncio.run(chaos(folder, seed, asked))
    if wrong or asked.keep:
        print(f"\nThe logs of all processes are in {folder / 'log'}.")
    else:
        place.discard(folder)
    return int(wrong)


async def chaos(folder: Path, seed: int, asked: argparse.Namespace) -> bool:
    """Whether something is wrong."""
    began, enough = time.monotonic(), asyncio.Event()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)

    async with World(folder, lease_s=LEASE_S) as world, Clients.open(world) as clients:
        tell("all processes are ready")
        kinds = [each for each in KINDS if not asked.only or any(words in each.name for words in asked.only)]
        faults = Chaos(world, seed, every_s=asked.every, kinds=kinds)
        async with asyncio.TaskGroup() as group:
            group.create_task(
                clients.want(wishes(seed, "chaos", Mix(), TENANTS), rate=asked.rate, seed=seed, until=enough)
            )
            group.create_task(faults.run(enough, tell=tell))
            group.create_task(progress(clients, enough, tell))
            await asyncio.sleep(asked.minutes * 60)
            enough.set()
        tell("no more faults, nobody wants more")
        still = await evidence.settled(world, SETTLES_S, tries=3)
        await clients.settle(30)
        await world.stop()
        tell("all processes were asked to end")
        history = await evidence.gather(world, clients)
        findings = checker.check(history)
        report(findings, history, clients, faults, folder, still)
    return bool(checker.broken(findings)) or any(still.values())


async def progress(clients: Clients, until: asyncio.Event, tell: Callable[[str], None]) -> None:
    """Say now and then how far the clients are."""
    while not until.is_set():
        jobs = {answer.job_id for answer in clients.answers} - {None}
        tell(f"{len(jobs):,} jobs, {len(clients.streams):,} streams read to their end, {clients.waiting} clients wait")
        try:
            async with asyncio.timeout(SAY_EVERY_S):
                await until.wait()
        except TimeoutError:
            continue


def report(
    findings: dict[str, Finding], history: History, clients: Clients, faults: Chaos, folder: Path, still: dict[str, int]
) -> None:
    """All that there is to say."""
    print("\nfaults")
    for name, count in sorted(faults.done.items()):
        print(f"  {count:>5}  {name}")
    print(f"  {faults.done.total():>5}  of {len(faults.done)} kinds (there are {len({kind.name for kind in KINDS})})")
    print("\njobs")
    for state, count in checker.states(history):
        print(f"  {count:>5}  {state}")
    print(f"  {len(history.jobs()):>5}  in all, {len(history.attempts()):,} attempts")
    kept = len(history.objects) - len(history.of("job_outputs"))
    print(f"  {kept:>5}  objects of lost attempts, which retention deletes with their jobs")
    print("\nclients")
    for what, count in sorted(clients.counts.items()):
        print(f"  {count:>5}  {what}")
    print("\nerrors in logs")
    for what, count in evidence.complaints(folder / "log").most_common(15):
        print(f"  {count:>5}  {what}")
    print(f"\n{checker.table(findings)}")
    print(f"\nstill open: {still}" if any(still.values()) else "\nnothing is open")
    broken = checker.broken(findings)
    print(f"{len(broken)} rules are broken" if broken else "no rule is broken")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./run chaos", description="Break a whole Stoker and see what comes of it.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, help="the wishes and faults of an earlier run")
    parser.add_argument("--rate", type=float, default=RATE, help="jobs a second")
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds between two faults, on average")
    parser.add_argument("--only", action="append", metavar="WORDS", help="only faults with these words in their name")
    parser.add_argument("--keep", action="store_true", help="keep the folder also when all is well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
