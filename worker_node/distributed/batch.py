"""A batch: events and log lines of one rank that travel in one message.

Says how they are packed and what each costs in the window; ``outbox`` decides when a batch goes, ``pool`` hands out
what came.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from worker_node.distributed.media import Frame
from worker_node.distributed.messages import Message
from worker_node.distributed.window import WINDOW_BYTES, ReceiveWindow

_OVERHEAD_BYTES: Final = 256
"""What an event takes in memory beside its data."""

_PROGRESS_BYTES: Final = WINDOW_BYTES // 64
"""Progress is charged at least this, so that a slow caller is a few dozen steps behind and not thousands."""


class Sort(enum.IntEnum):
    """What an item is, which decides what becomes of it when the caller is slow."""

    OUTPUT = 0
    PROGRESS = 1
    ERROR = 2
    LOG = 3
    LOST = 4


class Item(NamedTuple):
    """One event: ``value`` as ``wire`` encoded it."""

    sort: Sort
    value: Sequence[Frame]
    image_format: str = "jpeg"
    as_text: bool = False

    @property
    def cost_bytes(self) -> int:
        """What it is charged in the window; both ends must say the same."""
        size = sum(map(len, self.value), _OVERHEAD_BYTES)
        return max(size, _PROGRESS_BYTES) if self.sort is Sort.PROGRESS else size

    def packed(self) -> list[Any]:
        """Return what goes into the head of the batch; the buffers go beside it."""
        return [self.sort.value, self.value[0], len(self.value) - 1, self.image_format, self.as_text]


class Event(NamedTuple):
    """An event as it came. Whoever has it out of the way says so, once, or its rank waits for it."""

    rank: int
    item: Item
    window: ReceiveWindow

    def taken(self) -> None:
        """Give its room in the window back."""
        self.window.taken(self.item.cost_bytes)


class Line(NamedTuple):
    """One log line; ``level`` is logging's."""

    level: int
    text: str

    @property
    def cost_bytes(self) -> int:
        """What it is charged in the window."""
        return _OVERHEAD_BYTES + 4 * len(self.text)

    def packed(self) -> list[Any]:
        """Return what goes into the head of the batch."""
        return [Sort.LOG.value, self.level, self.text]


class Lost(NamedTuple):
    """How many log lines were dropped."""

    lines: int

    @property
    def cost_bytes(self) -> int:
        """What it is charged in the window."""
        return _OVERHEAD_BYTES

    def packed(self) -> list[Any]:
        """Return what goes into the head of the batch."""
        return [Sort.LOST.value, self.lines]


def unpacked(message: Message) -> Iterator[Item | Line | Lost]:
    """Take a batch apart, in the order in which its rank put it together."""
    first, buffers = 0, message.value
    for sort, *rest in message.fields["items"]:
        if sort == Sort.LOG:
            yield Line(*rest)
        elif sort == Sort.LOST:
            yield Lost(*rest)
        else:
            structure, count, image_format, as_text = rest
            value = [structure, *buffers[first : first + count]] if count else [structure]
            yield Item(Sort(sort), value, image_format, as_text)
            first += count
