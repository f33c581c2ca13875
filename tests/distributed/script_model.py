"""The model: what the caller of a ``scripted`` call must see, worked out without running it.

Pure. A script is walked through step by step for all ranks at once; where a rank ends, and who then waits for it in a
collective, decides the outcome, the events and whether the ranks can still be in step.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class End(enum.Enum):
    """How a rank's walk through a script ends."""

    RETURNS = "returns"
    RAISES = "raises"
    UNSENDABLE = "a value that cannot travel"
    DIES = "dies"
    WAITS = "in a collective that another rank never enters"
    HOLDS = "looks for a cancel"
    DEAF = "does not look for a cancel"


REPORTING = frozenset({End.RETURNS, End.RAISES, End.UNSENDABLE})


@dataclass(frozen=True)
class Step:
    """One operation of ``Scripted``, the ranks that do it, and how often."""

    operation: str
    ranks: tuple[int, ...]
    count: int = 1


@dataclass(frozen=True)
class Event:
    """An event as the caller recognises it."""

    nonce: int
    rank: int
    number: int
    is_error: bool = False
    is_progress: bool = False


@dataclass(frozen=True)
class Outcome:
    """What the caller gets: ``kind`` is "result" or the exception's class; ``code`` is a dead rank's."""

    kind: str
    rank: int | None = None
    code: int | None = None


@dataclass
class Walk:
    """One rank's way through the script."""

    rank: int
    end: End | None = None
    events: list[Event] = field(default_factory=list)
    reduced: int = 0
    unwaited: int = 0
    code: int | None = None


@dataclass(frozen=True)
class Expected:
    """What must be seen. ``outcomes`` has several where ranks race; events of ranks in ``complete`` all come."""

    blocks: bool
    outcomes: frozenset[Outcome]
    events: Mapping[int, tuple[Event, ...]]
    complete: frozenset[int]
    restarts: bool
    sums: int = 0

    @property
    def total(self) -> int:
        """How many events the ranks add."""
        return sum(len(events) for events in self.events.values())


def may_be_seen(seen: Sequence[Event], added: Sequence[Event], *, complete: bool) -> bool:
    """Tell whether a caller may see ``seen`` of what one rank added: in order, all of it where the rank came to an end.

    Progress may be missing where progress is what the rank added next, which took its place.
    """
    left = iter(added)
    skipped: list[Event] = []
    for event in seen:
        for candidate in left:
            if candidate == event:
                break
            skipped.append(candidate)
        else:
            return False
    if complete:
        skipped += left
    following = {event.number - 1: event for event in added}
    return all(
        event.is_progress and event.number in following and following[event.number].is_progress for event in skipped
    )


def walk(steps: Sequence[Step], nonce: int, world_size: int, *, listens: bool) -> list[Walk]:
    """Follow all ranks through the steps; without a listener events are not even encoded."""
    walks = [Walk(rank) for rank in range(world_size)]
    for step in steps:
        gone = [each for each in walks if each.end is not None]
        for each in walks:
            if each.end is None and each.rank in step.ranks:
                _do(step, each, nonce, listens=listens, alone=bool(gone))
    for each in walks:
        each.end = each.end or End.RETURNS
    return walks


def expect(steps: Sequence[Step], nonce: int, world_size: int, *, listens: bool) -> Expected:
    """Say what the caller must see who neither leaves nor cancels."""
    walks = walk(steps, nonce, world_size, listens=listens)
    ends = {each.end for each in walks}
    dead = [Outcome("RankDied", each.rank, each.code) for each in walks if each.end is End.DIES]
    raised = [Outcome("RankFailed", each.rank) for each in walks if each.end is End.RAISES]
    unsendable = [Outcome("SerializationFailed")] if End.UNSENDABLE in ends else []
    failures = [*dead, *raised, *unsendable]
    blocks = not failures and bool(ends & {End.HOLDS, End.DEAF})
    complete = frozenset() if dead or blocks else frozenset(each.rank for each in walks if each.end in REPORTING)
    return Expected(
        blocks=blocks,
        outcomes=frozenset(failures or [Outcome("result", 0)]),
        events={each.rank: tuple(each.events) if listens else () for each in walks},
        complete=complete,
        restarts=bool(ends & {End.DIES, End.WAITS, End.DEAF}) or len({each.unwaited for each in walks}) > 1,
        sums=walks[0].reduced * world_size,
    )


def _do(step: Step, walk: Walk, nonce: int, *, listens: bool, alone: bool) -> None:
    """Let one rank do one step; ``alone``: another rank is not coming to any collective."""
    match step.operation:
        case "output" | "error" | "progress":
            first, is_error, is_progress = len(walk.events), step.operation == "error", step.operation == "progress"
            walk.events += [
                Event(nonce, walk.rank, first + number, is_error, is_progress) for number in range(step.count)
            ]
        case "output_lock":
            walk.end = End.UNSENDABLE if listens else None
        case "return_lock":
            # Only rank 0's result travels.
            walk.end = End.UNSENDABLE if walk.rank == 0 else End.RETURNS
        case "reduce":
            walk.end = End.WAITS if alone else None
            walk.reduced += 0 if alone else step.count
        case "reduce_unwaited":
            walk.unwaited += step.count
        case "fail":
            walk.end = End.RAISES
        case "exit" | "kill":
            walk.end, walk.code = End.DIES, 3 if step.operation == "exit" else -9
        case "hold" | "be_deaf":
            if walk.rank == 0:
                walk.events.append(Event(nonce, 0, len(walk.events)))
            deaf = step.operation == "be_deaf"
            walk.end = End.DEAF if deaf else End.WAITS if alone else End.HOLDS
        case _:
            raise ValueError(step.operation)
