"""The ledger: every call is entered once and answered once, with what is its own."""

from __future__ import annotations

import collections
import random
from typing import Any

from tests.soak import values
from tests.soak.plan import Planned


class WrongAnswer(Exception):
    """A caller was told what is not so. Ends the soak."""


class Ledger:
    """Counts calls by how they ended, and holds those that are open."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.answers: collections.Counter[str] = collections.Counter()

    def enter(self, call: Planned) -> None:
        """Note that a call was made."""
        if call.nonce in self.open:
            raise WrongAnswer(f"call {call.nonce} was made twice")
        self.open.add(call.nonce)

    def close(self, call: Planned, how: str) -> None:
        """Note that a call was answered."""
        if call.nonce not in self.open:
            raise WrongAnswer(f"call {call.nonce} was answered twice")
        self.open.remove(call.nonce)
        self.answers[how] += 1


class Heard:
    """What one caller has heard of events; each is checked as it comes."""

    def __init__(self, call: Planned) -> None:
        self.call = call
        self.events = call.payload.get("events") or [["output", [0]]]
        self.following = dict.fromkeys(range(call.world_size), 0)
        self.count = 0

    def hear(self, data: dict[str, Any]) -> None:
        """Take an event: it must be this call's, the next of its rank, and carry its own value."""
        rank, number = data["rank"], data["number"]
        if data["nonce"] != self.call.nonce:
            raise WrongAnswer(f"call {self.call.nonce} heard an event of call {data['nonce']}")
        self._skip(rank, number)
        kind, ranks = self.events[number] if number < len(self.events) else ("", [])
        if rank not in ranks or kind != data["kind"]:
            raise WrongAnswer(f"call {self.call.nonce}: no {data['kind']} {number} was added on rank {rank}")
        if self.call.payload["do"] == "emit":
            rng = random.Random(f"{self.call.nonce} {rank} {number}")
            if not values.same(data["value"], values.event_value(rng, self.call.payload.get("size_bytes", 0))):
                raise WrongAnswer(f"call {self.call.nonce}: event {number} of rank {rank} has another value")
        self.following[rank] = number + 1
        self.count += 1

    def end(self) -> None:
        """Check that nothing is missing."""
        for rank in self.following:
            self._skip(rank, len(self.events))

    def _skip(self, rank: int, number: int) -> None:
        """Only progress that other progress of the rank follows may be missing."""
        mine = [index for index in range(self.following[rank], len(self.events)) if rank in self.events[index][1]]
        for index, after in zip(mine, [*mine[1:], None], strict=False):
            if index >= number:
                break
            if self.events[index][0] != "progress" or after is None or self.events[after][0] != "progress":
                raise WrongAnswer(f"call {self.call.nonce}: event {index} of rank {rank} is missing before {number}")
        if number < self.following[rank]:
            raise WrongAnswer(f"call {self.call.nonce}: event {number} of rank {rank} came again or late")


def check_result(call: Planned, result: Any, expected: Any) -> None:
    """Check that a result is this call's."""
    if result["nonce"] != call.nonce or result["rank"] != 0:
        raise WrongAnswer(f"call {call.nonce} has the result of call {result['nonce']}, rank {result['rank']}")
    if not values.same(result["value"], expected):
        raise WrongAnswer(f"call {call.nonce} ({call.kind}) has a result with another value")
