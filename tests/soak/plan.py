"""The plan of a soak: what is called, from a seed. Pure, so that the same seed makes the same calls."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# How often each kind comes among calls that lose no rank, and how large its values are.
GENTLE = {
    "echo": 34, "echo_media": 14, "echo_large": 0.6, "make": 8, "make_large": 0.6, "stream": 8, "stream_media": 3,
    "flood": 0.4, "text": 2, "listen": 4, "fail": 6, "lock_result": 2, "lock_event": 1.5, "lock_payload": 1,
    "cancel": 2.5, "cancel_task": 2.5, "cancel_early": 2, "time_out": 1.5, "fall_silent": 0.7, "leave": 4, "reduce": 5,
    "talk": 0.7, "together": 3,
}  # fmt: skip
# Those that cost the ranks, among the calls of the rough part.
ROUGH = {"kill": 0.35, "exit": 0.1, "kill_idle": 0.1, "deaf_cancel": 0.05, "deaf_time_out": 0.05, "fail_half": 0.05}
TOGETHER = ("echo", "echo_media", "make", "stream", "fail", "lock_result", "cancel_task", "reduce", "text")
SMALL_BYTES, LARGE_BYTES = 20_000, 6 * 2**20
FLOOD = 3000


@dataclass(frozen=True)
class Planned:
    """One call, or several at once: its kind, the seed of its values and what the worker is told."""

    kind: str
    nonce: int
    world_size: int
    payload: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Planned, ...] = ()

    @property
    def calls(self) -> int:
        """How many calls this is."""
        return len(self.parts) or 1


def plan(seed: int, calls: int, world_size: int, kills: int | None = None) -> Iterator[Planned]:
    """Plan calls: each gentle kind once, as a rehearsal, then what chance chooses.

    The first two fifths lose no rank, so that ranks live long there.
    ``kills``: how many calls of the rest kill a rank, where chance alone might choose too few.
    """
    rng = random.Random(f"{seed} {world_size}")
    nonce, rough_from = 1, calls * 2 // 5
    for kind in GENTLE:
        rehearsed = _planned(rng, kind, nonce, world_size)
        yield rehearsed
        nonce += rehearsed.calls
    certain = set() if kills is None else {rough_from + (calls - rough_from) * n // kills for n in range(kills)}
    while nonce <= calls:
        weights = {**GENTLE, **ROUGH} if nonce > rough_from and kills is None else GENTLE
        kind = rng.choices(list(weights), list(weights.values()))[0]
        due = {each for each in certain if each < nonce}
        if due:
            kind = "kill" if len(certain) % 2 else "kill_idle"
            certain.remove(min(due))
        planned = _planned(rng, kind, nonce, world_size)
        yield planned
        nonce += planned.calls


def _planned(rng: random.Random, kind: str, nonce: int, world_size: int) -> Planned:
    if kind == "together":
        count = rng.randint(2, 8)
        parts = [_planned(rng, rng.choice(TOGETHER), nonce + index, world_size) for index in range(count)]
        return Planned(kind, nonce, world_size, parts=tuple(parts))
    some = sorted(rng.sample(range(world_size), rng.randint(1, world_size)))
    one = rng.randrange(world_size)
    match kind:
        case "make" | "make_large":
            payload = {"do": "make", "size_bytes": LARGE_BYTES if kind == "make_large" else SMALL_BYTES}
        case "stream" | "stream_media" | "flood" | "text" | "listen" | "leave":
            payload = _emitting(rng, kind, some)
        case "fail" | "fail_half":
            half = kind == "fail_half" and world_size > 1
            payload = {"do": "fail", "ranks": [one] if half else some, "before_collective": half}
        case "lock_result" | "lock_event":
            payload = {"do": "lock", "where": kind.removeprefix("lock_")}
        case "cancel" | "cancel_task" | "time_out" | "fall_silent":
            payload = {"do": "wait", "heeds": True}
        case "deaf_cancel" | "deaf_time_out":
            payload = {"do": "wait", "heeds": False}
        case "kill" | "exit":
            payload = {"do": "die", "rank": one, "how": kind}
        case "kill_idle":
            payload = {"do": "reduce"}
        case "talk":
            payload = {"do": "talk", "lines": rng.choice([10, 300, 3000])}
        case "reduce" | "cancel_early":
            payload = {"do": "reduce"}
        case _:
            payload = {"do": "echo"}
    return Planned(kind, nonce, world_size, payload)


def _emitting(rng: random.Random, kind: str, ranks: list[int]) -> dict[str, Any]:
    if kind == "flood":
        return {"do": "emit", "events": [["output", ranks]] * FLOOD}
    kinds = ["output"] if kind in ("text", "leave") else ["output", "output", "progress"]
    events = [[rng.choice(kinds), ranks] for _ in range(rng.randint(1, 60))]
    size_bytes = {"stream_media": SMALL_BYTES, "text": None}.get(kind, 0)
    return {"do": "emit", "events": events, "size_bytes": size_bytes}
