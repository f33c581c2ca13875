"""One run: every measure at one world size, the peers taking turns, so that what else the machine does hits all alike.

Gathers figures; judges and prints nothing but what became of fal.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import bare
from benchmarks.peers.figures import Figures, Key
from benchmarks.peers.process import Peer, PeerFailed
from benchmarks.peers.thresholds import WAYS

MIB_32 = 32 << 20


@dataclass(frozen=True)
class Counts:
    """How often; fal's are smaller, because each of its calls takes a tenth of a second."""

    repeats: int = 3
    slices: int = 5
    calls: int = 400
    fal_calls: int = 12
    paced: int = 40
    pace_s: float = 0.03
    burst: int = 50_000
    left_behind: int = 5_000
    large: int = 8
    fal_large: int = 3


QUICK = Counts(repeats=1, slices=1, calls=50, fal_calls=5, paced=5, burst=1_000, left_behind=200, large=2, fal_large=2)


@dataclass(frozen=True)
class Fal:
    """Where fal is: the interpreter, and what is put before its modules."""

    python: str
    path: Sequence[Path] = ()


class Session:
    """Measures at one world size."""

    def __init__(self, figures: Figures, world_size: int, counts: Counts) -> None:
        self._figures, self._world_size, self._counts = figures, world_size, counts
        self._fal: Peer | None = None
        self._repeat = 0

    def run(self, fal: Fal | None, *, calls: bool) -> None:
        """Measure all, or without ``calls`` only starts and rebuilds."""
        with contextlib.ExitStack() as stack:
            ours, raw = stack.enter_context(Peer("ours")), stack.enter_context(Peer("raw"))
            raw.ask("start")
            if fal is not None and calls:
                self._fal = stack.enter_context(Peer("theirs", python=fal.python, path=fal.path))
                self._ask_fal("start", "start", world_size=self._world_size)
            for repeat in range(self._counts.repeats):
                self._repeat = repeat
                self._measure_start()
                self._add("start", "ours", [ours.ask("start", world_size=self._world_size)])
                if calls:
                    self._measure_calls(ours, raw)
                    self._measure_events(ours)
                    self._measure_large(ours)
                    self._measure_death(ours, "in a call", "death_in_call")
                self._measure_start()
                self._measure_death(ours, "idle", "death_idle")
                ours.ask("stop")

    def _measure_start(self) -> None:
        self._add("start", "bare", [bare.start_s(self._world_size)])

    def _measure_calls(self, ours: Peer, raw: Peer) -> None:
        counts = self._counts
        ours.ask("noop", count=counts.calls)
        raw.ask("noop", count=counts.calls)
        for _ in range(counts.slices):
            self._add("empty call", "raw", raw.ask("noop", count=counts.calls))
            self._add("empty call", "ours", ours.ask("noop", count=counts.calls))
            self._ask_fal("empty call", "noop", count=counts.fal_calls)

    def _measure_events(self, ours: Peer) -> None:
        counts = self._counts
        for way, name in WAYS.items():
            paced = ours.ask("latency", way=way, count=counts.paced, pace_s=counts.pace_s)
            self._add(f"event, {name}", "ours", paced)
        self._ask_fal(f"event, {WAYS['stream']}", "latency", count=counts.paced, pace_s=counts.pace_s)
        for way, name in WAYS.items():
            self._add_burst(f"burst, {name}", "ours", ours.ask("burst", way=way, count=counts.burst))
        self._add_left_behind("ours", ours.ask("burst", way="stream", count=counts.left_behind))
        with self._fal_may_fail():
            if self._fal is not None:
                said = self._fal.ask("burst", count=counts.burst, flush=True)
                self._add_burst(f"burst, {WAYS['stream']}", "fal", said)
                self._add_left_behind("fal", self._fal.ask("burst", count=counts.left_behind, flush=False))

    def _measure_large(self, ours: Peer) -> None:
        counts = self._counts
        for do in ("result", "payload"):
            self._add(f"32 MiB {do}", "ours", ours.ask(do, count=counts.large, size_bytes=MIB_32))
            self._ask_fal(f"32 MiB {do}", do, count=counts.fal_large, size_bytes=MIB_32)

    def _measure_death(self, ours: Peer, when: str, do: str) -> None:
        said = ours.ask(do)
        self._add(f"death noticed, {when}", "ours", [said["noticed_ms"]])
        self._add("rebuild", "ours", [said["rebuilt_s"]])

    def _add(self, measure: str, peer: str, samples: Sequence[float]) -> None:
        self._figures.add(Key(self._world_size, measure, peer), self._repeat, samples)

    def _add_burst(self, measure: str, peer: str, said: dict[str, float]) -> None:
        self._add(measure, peer, [said["rate"]])
        self._add(f"{measure}, wrong", peer, [said["lost"] + said["disordered"] + said["foreign"]])

    def _add_left_behind(self, peer: str, said: dict[str, float]) -> None:
        self._add("events left behind, lost", peer, [said["lost"]])
        self._add("events left behind, in the next call", peer, [said["foreign"]])

    def _ask_fal(self, measure: str, do: str, **order: float) -> None:
        with self._fal_may_fail():
            if self._fal is not None:
                said = self._fal.ask(do, **order)
                self._add(measure, "fal", said if isinstance(said, list) else [said])

    @contextlib.contextmanager
    def _fal_may_fail(self) -> Iterator[None]:
        try:
            yield
        except PeerFailed as exc:
            print(f"going on without fal at world size {self._world_size}: {exc}", file=sys.stderr, flush=True)
            self._fal = None
