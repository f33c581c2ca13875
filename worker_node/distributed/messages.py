"""The messages between the parent and its ranks, as frames.

A message is a head (who, what, which call, a few fields) and a value already encoded by ``wire``, or the buffers of a
``batch``. Every message of a call carries the call's number, so nothing of one call can reach another. Says nothing of
how messages travel: ``link`` and ``hub`` do that.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from worker_node.distributed.media import Frame


class Kind(enum.StrEnum):
    """What a message says."""

    # Parent to rank.
    LAUNCH = "launch"
    JOIN = "join"
    CALL = "call"
    STOP = "stop"
    # Rank to parent.
    HELLO = "hello"
    PORT = "port"
    READY = "ready"
    SETUP_FAILED = "setup_failed"
    BATCH = "batch"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


REPORTS = frozenset({Kind.DONE, Kind.FAILED, Kind.CANCELLED})
"""The kinds that end a call on a rank; each rank sends exactly one for each call."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``call`` is 0 where it belongs to no call; ``rank`` is the sender's, and 0 in a command."""

    kind: Kind
    rank: int
    call: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    value: Sequence[Frame] = ()
    given: Sequence[int] = ()
    """Which frames of ``value`` are numbers that stand for memory sent ahead (``segments``)."""


_IN_HEAD_BYTES: Final = 2**16
"""A structure up to this size travels in the head: one frame less to send and to receive."""


def pack(token: bytes, message: Message) -> list[Frame]:
    """Turn a message into frames; the first begins with the pool's token."""
    value, structure = message.value, None
    if value and isinstance(value[0], bytes) and len(value[0]) <= _IN_HEAD_BYTES and message.kind is not Kind.BATCH:
        structure, *value = value
    values = [token, message.kind.value, message.rank, message.call, message.fields, structure, list(message.given)]
    # Texts of errors and log lines are whatever user code made of them, halves of characters included.
    head: bytes = msgpack.packb(values, unicode_errors="surrogatepass")
    return [head, *value]


def unpack(token: bytes, frames: Sequence[Frame]) -> Message | None:
    """Read a message; None where it is not one of this pool's, whoever sent it."""
    try:
        head = msgpack.unpackb(frames[0], strict_map_key=False, unicode_errors="surrogatepass")
        sent_token, kind, rank, call, fields, structure, given = head
        if sent_token != token:
            return None
        value = frames[1:] if structure is None else [structure, *frames[1:]]
        return Message(Kind(kind), rank, call, fields, value, given)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException):
        return None
