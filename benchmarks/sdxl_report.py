"""What the variants of ``sdxl`` did, as a table, and whether it is what has to be shown. Measures nothing."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

Times = list[tuple[float, float]]
"""When each call began and ended."""

MIN_RATIO = 0.98
MAX_OVERHEAD = 0.01


@dataclass
class Turns:
    """What one variant did in all repeats: seconds of each call, pictures a second of each repeat, its pictures."""

    name: str
    calls_s: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)
    spans: list[list[list[float]]] = field(default_factory=list)

    def add(self, times: Times, rate: float) -> None:
        """Note one repeat, and say so: a run that is cut short has told what it measured."""
        self.calls_s += [ended - began for began, ended in times]
        self.rates.append(rate)
        taken = "  ".join(f"{ended - began:.4f}" for began, ended in times)
        print(f"  {self.name}: {rate:.4f} pictures/s; s a call: {taken}", flush=True)

    def line(self) -> str:
        """One row of the table."""
        p99 = statistics.quantiles(self.calls_s, n=100, method="inclusive")[-1]
        each = "  ".join(f"{rate:.3f}" for rate in self.rates)
        return (
            f"{self.name:32} {statistics.median(self.calls_s):7.4f} {p99:8.4f} {statistics.median(self.rates):9.3f}"
            f"   {each}   ({len(self.calls_s)} calls)"
        )


def where_a_call_went(turns: Turns) -> str:
    """Take a call apart, in medians: what the ranks did, and what was left for the way to them and back."""
    world_size = len(turns.spans) // len(turns.rates)
    by_repeat = [turns.spans[at : at + world_size] for at in range(0, len(turns.spans), world_size)]
    calls = [call for repeat in by_repeat for call in zip(*repeat, strict=True)]
    slowest = [max(drawn - began for began, drawn, *_ in call) for call in calls]
    mean = [statistics.mean(drawn - began for began, drawn, *_ in call) for call in calls]
    # From the moment at which the last rank had drawn.
    gather = [call[0][2] - max(drawn for _, drawn, *_ in call) for call in calls]
    copy = [call[0][3] - call[0][2] for call in calls]
    skew = [max(began for began, *_ in call) - min(began for began, *_ in call) for call in calls]
    inside = [call[0][3] - min(began for began, *_ in call) for call in calls]
    rest = [taken - ranks for taken, ranks in zip(turns.calls_s, inside, strict=True)]
    by_rank = [statistics.median(call[rank][1] - call[rank][0] for call in calls) for rank in range(world_size)]
    parts = {
        "drawing, mean rank": mean,
        "drawing, slowest rank": slowest,
        "ranks begin apart": skew,
        "gather": gather,
        "GPU to memory": copy,
        "way there and back": rest,
    }
    told = "  ".join(f"{name} {statistics.median(taken) * 1000:.2f}" for name, taken in parts.items())
    ranks = "  ".join(f"{drawing * 1000:.1f}" for drawing in by_rank)
    return f"{turns.name}, ms: {told}  (drawing by rank {ranks})"


def judged(what: str, value: float, limit: float, holds: bool) -> str:
    """Say whether a threshold holds."""
    return f"{what}: {value:.2%} (threshold {limit:.0%}): {'holds' if holds else 'MISSED'}"


def report(bare: Turns, invoke: Turns, beside: Turns, ours: Turns, fal: Turns) -> None:
    """Print the table, what a call is made of, and whether the thresholds hold."""
    variants = [turns for turns in (bare, invoke, beside, ours, fal) if turns.rates]
    print(f"\n{'':32} {'p50 s':>7} {'p99 s':>8} {'images/s':>9}   by repeat")
    for turns in variants:
        print(turns.line())
    for turns in (ours, fal):
        if turns.spans:
            print(where_a_call_went(turns))
    by_repeat = zip(ours.rates, beside.rates, strict=True)
    ratio = statistics.median(mine / theirs for mine, theirs in by_repeat)
    print(judged("images/s of invoke beside as many bare processes", ratio, MIN_RATIO, ratio >= MIN_RATIO))
    if fal.rates:
        fal_ratio = statistics.median(fal.rates) / statistics.median(beside.rates)
        print(f"images/s of fal.distributed beside as many bare processes: {fal_ratio:.2%}")
    alone_s, invoked_s = statistics.median(bare.calls_s), statistics.median(invoke.calls_s)
    overhead = invoked_s / alone_s - 1
    what = f"what one invoke adds to the bare pipeline, {(invoked_s - alone_s) * 1000:.2f} ms"
    print(judged(what, overhead, MAX_OVERHEAD, overhead < MAX_OVERHEAD))
    for turns in (invoke, ours, fal):
        common = bare.digests.keys() & turns.digests.keys()
        if common:
            equal = sum(bare.digests[seed] == turns.digests[seed] for seed in common)
            print(f"pictures of the bare process that {turns.name} drew bit for bit: {equal} of {len(common)}")
