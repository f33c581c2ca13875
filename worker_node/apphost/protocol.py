"""Frames between a node's supervisor and an app host: a length, then msgpack of a message's name and fields.

Pure: no sockets. What callers and apps wrote travels as JSON text inside a message, so that a number is of any size and
nothing else than JSON can pass. Bytes of files stay in the spool; messages carry their paths.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import msgpack

MAX_FRAME_BYTES = 64 * 2**20
"""More than any JSON that a job may hold. A length beyond it is not ours: something wrote to the socket."""
MAX_RESULT_BYTES = 5_000_000
MAX_FILES = 1000
"""Of a result: each is stored by itself, has a row, and stands in every answer about the job."""
MAX_EVENT_BYTES = 2**16
"""Of an event's JSON. A job's newest progress rides on the heartbeat that keeps the leases of all jobs of its node."""

_LENGTH = struct.Struct(">I")


class ProtocolViolationError(Exception):
    """The other side sent what is no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages."""


@dataclass(frozen=True, slots=True)
class Load(Message):
    """To the host, first: which app to serve."""

    import_string: str
    world_size: int | None
    spool: str


@dataclass(frozen=True, slots=True)
class Place(Message):
    """To the host: where the ranks may be, from now on. None: anywhere."""

    devices: list[int] | None


@dataclass(frozen=True, slots=True)
class Vacate(Message):
    """To the host: end the ranks; they may be nowhere until they are placed again."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class WarmUp(Message):
    """To the host: start the ranks now."""


@dataclass(frozen=True, slots=True)
class Start(Message):
    """To the host: serve a call."""

    call_id: str
    endpoint: str
    input_json: str
    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """To the host: stop a call."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Fetched(Message):
    """To the host: where a file lies now, or why it does not."""

    call_id: str
    number: int
    path: str = ""
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CallEnded(Message):
    """To the host: what came of a call of another app. ``files`` are the JSON pointers of the Files in its result."""

    call_id: str
    number: int
    result_json: str = "{}"
    files: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """To the host, last: end in order."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class Loaded(Message):
    """From the host: the app is imported."""

    manifest: dict[str, Any]
    min_runners: int
    keep_alive_s: float | None
    max_multiplexing: int


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """From the host: the app's own setup is done."""


@dataclass(frozen=True, slots=True)
class Refused(Message):
    """From the host, last: the app cannot be served."""

    problem: str
    hint: str


@dataclass(frozen=True, slots=True)
class Ranks(Message):
    """From the host: the ranks have changed."""

    state: str
    pids: list[int]


@dataclass(frozen=True, slots=True)
class Vacated(Message):
    """From the host: the answer to ``Vacate``, once no process of the ranks is left."""


@dataclass(frozen=True, slots=True)
class WarmedUp(Message):
    """From the host: the answer to ``WarmUp``."""

    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Happened(Message):
    """From the host: an event of a call."""

    call_id: str
    kind: str
    rank: int | None
    data_json: str


@dataclass(frozen=True, slots=True)
class Cancelling(Message):
    """From the host: a cancel was heard, so its event loop is alive."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Fetch(Message):
    """From the host: a call needs a file."""

    call_id: str
    number: int
    url: str


@dataclass(frozen=True, slots=True)
class CallApp(Message):
    """From the host: a call asks for another app's work. ``files``, as ``Done`` has them, are those that it made."""

    call_id: str
    number: int
    app: str
    endpoint: str
    input_json: str
    key: str | None
    files: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LeaveCall(Message):
    """From the host: nobody waits for that any more."""

    call_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Done(Message):
    """From the host: a call's result. ``files`` are (pointer, path, name, content type, metadata)."""

    call_id: str
    result_json: str
    cold_start_s: float
    run_s: float
    warm: bool
    peak_memory_bytes: int | None
    files: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """From the host: a call's error, as ``failures.describe`` makes it."""

    call_id: str
    error: dict[str, Any]


_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in Message.__subclasses__()}


def pack(message: Message) -> bytes:
    """Turn a message into a frame."""
    values = [getattr(message, each.name) for each in fields(message)]
    body: bytes = msgpack.packb([type(message).__name__, values], unicode_errors="surrogatepass")
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Finds messages in a stream of bytes."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take in ``data`` and yield each message that is whole now.

        Raises:
            ProtocolViolationError: the bytes are no messages; nothing after them can be read.
        """
        self._waiting += data
        while len(self._waiting) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._waiting)
            if length > MAX_FRAME_BYTES:
                raise ProtocolViolationError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._waiting) < end:
                return
            body = bytes(self._waiting[_LENGTH.size : end])
            del self._waiting[:end]
            yield _unpack(body)


def _unpack(body: bytes) -> Message:
    try:
        name, values = msgpack.unpackb(body, unicode_errors="surrogatepass")
        return _KINDS[name](*values)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ProtocolViolationError(f"not a message: {type(error).__name__}") from error
