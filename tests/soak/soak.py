"""One soak: many calls on one runner, with samples of this process and of the ranks between them."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.soak.bounds import Verdict, judge_count, judge_growth
from tests.soak.callers import Callers
from tests.soak.ledger import Ledger, WrongAnswer
from tests.soak.plan import Planned
from tests.soak.watch import Sample, sample
from tests.soak.worker import tidied
from worker_node.distributed import DistributedRunner

WORKER = "tests.soak.worker:SoakWorker"
COUNTED = {"descriptors": 2, "threads": 2, "children": 0, "segments": 1, "files": 0}
# A leak of one KiB a call breaks the first, a small object in two calls the second, a block of Python's the third.
ALLOCATED_BYTES_A_CALL, OBJECTS_A_CALL, BLOCKS_A_CALL = 512.0, 0.5, 1.0
# All waver whatever is called, so over a short stretch only what exceeds this is a leak.
WAVERING_BYTES, WAVERING_OBJECTS, WAVERING_BLOCKS = 2 * 2**20, {"parent": 300, "rank": 60}, 3000
# Memory is what the system gave, with all that lies free between what is in use. The C library keeps some MiB free at
# the end of each thread's own memory, and no trim reaches that: a thread that is new to large messages adds a step.
MEMORY_BYTES_A_CALL, WAVERING_MEMORY_BYTES = 512.0, 16 * 2**20
# So many calls make whatever is made on first use: each kind once, and what runs in threads of the executor.
REHEARSAL = 30


class Soak:
    """Makes the calls of a plan and keeps samples."""

    def __init__(self, world_size: int, every: int, folder: Path) -> None:
        self.world_size, self.ledger = world_size, Ledger()
        self.own: list[Sample] = []
        self.ranks: dict[int, list[Sample]] = collections.defaultdict(list)
        self.restarts = self.calls = 0
        self._every, self._folder = every, folder

    async def run(self, calls: Iterable[Planned]) -> None:
        """Make all calls.

        Raises:
            WrongAnswer: one was not answered as it must be.
        """
        env = {"OMP_NUM_THREADS": "1"}
        runner = DistributedRunner(WORKER, self.world_size, env=env, grace_s=2.0, on_log=lambda _: None)
        await runner.start()
        callers, due = Callers(runner, self.ledger), REHEARSAL
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        try:
            for call in calls:
                if self.calls >= due:
                    await self._sample(runner, callers, call)
                    due += self._every
                await callers.make(call)
                self.calls += call.calls
            if self.ledger.open:
                raise WrongAnswer(f"calls {sorted(self.ledger.open)} were not answered")
            self.restarts = runner.status().restarts
        finally:
            await runner.stop()

    async def _sample(self, runner: DistributedRunner, callers: Callers, before: Planned) -> None:
        inside: dict[int, dict[str, int]] = {}
        # Between two nonces, which rise by one.
        payload = {"nonce": before.nonce - 0.5, "do": "tidy"}
        await runner.call(payload, on_event=lambda event: inside.update({event.rank: event.data}))
        for rank in runner.status().ranks:
            self.ranks[rank.pid].append(sample(self.calls, rank.pid, inside[rank.rank]))
        self.own.append(sample(self.calls, os.getpid(), tidied(), self._folder))
        if self._every >= 50:
            latest = [self.own[-1], *(self.ranks[rank.pid][-1] for rank in runner.status().ranks)]
            memory = ", ".join(
                f"{each.memory_bytes / 2**20:,.1f} ({each.allocated_bytes / 2**20:,.1f} in use)" for each in latest
            )
            print(f"world size {self.world_size}: {self.calls:,} calls, MiB of parent and ranks: {memory}", flush=True)

    def verdicts(self) -> list[Verdict]:
        """Judge this process over the whole soak, and the first ranks, which live longest and had the rehearsal."""
        own = after_warm_up(self.own)
        lives = [after_warm_up(life) for life in list(self.ranks.values())[: self.world_size]]
        ranks = f"rank of {self.world_size}"
        found = list(judge(f"parent of {self.world_size}", own, COUNTED))
        counted = {name: limit for name, limit in COUNTED.items() if name != "files"}
        for life in lives:
            found += judge(f"{ranks}, {life[-1].calls - life[0].calls:,} calls long", life, counted)
        return found


def judge(whose: str, samples: Sequence[Sample], counted: Mapping[str, int]) -> Iterator[Verdict]:
    """Judge one process."""
    calls = [each.calls for each in samples]
    span = max(1, calls[-1] - calls[0])
    grown = (
        ("allocated", "bytes", ALLOCATED_BYTES_A_CALL, WAVERING_BYTES, [each.allocated_bytes for each in samples]),
        ("blocks", "", BLOCKS_A_CALL, WAVERING_BLOCKS, [each.blocks for each in samples]),
        ("objects", "", OBJECTS_A_CALL, WAVERING_OBJECTS[whose.split()[0]], [each.objects for each in samples]),
        ("memory", "bytes", MEMORY_BYTES_A_CALL, WAVERING_MEMORY_BYTES, [each.memory_bytes for each in samples]),
    )
    for name, unit, a_call, wavering, values in grown:
        yield judge_growth(f"{whose}: {name}", unit, max(a_call, wavering / span), calls, values)
    for name, limit in counted.items():
        yield judge_count(f"{whose}: {name}", limit, [getattr(each, name) for each in samples])


def after_warm_up(samples: Sequence[Sample]) -> list[Sample]:
    """Leave out the time in which caches and arenas fill: a tenth."""
    first, last = samples[0].calls, samples[-1].calls
    begin = first + 0.1 * (last - first)
    return [each for each in samples if each.calls >= begin]
